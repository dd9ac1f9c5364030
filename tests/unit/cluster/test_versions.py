"""Versions of registers: their order, and successors."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from memories.cluster.versions import RegisterVersion, successor

VERSIONS = st.builds(RegisterVersion, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))


@given(VERSIONS, VERSIONS)
def test_versions_sort_on_a_server_as_they_do_here(
    one: RegisterVersion, other: RegisterVersion
) -> None:
    """A server compares their texts."""
    assert (one < other) == (one.text < other.text)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_a_version_is_read_from_its_text(counter: int, client: int) -> None:
    """The counter is what users see, and the client tells two writes of one moment apart."""
    version = RegisterVersion.parse(RegisterVersion(counter, client).text)
    assert (counter, client) == (version.counter, version.client)
    assert RegisterVersion(counter, client) == version
    assert version.text.decode() == str(version)


@given(VERSIONS.filter(lambda one: one.counter < 2**63), st.floats(0, 2e9))
def test_a_write_is_newer_than_what_it_has_read(highest: RegisterVersion, wall: float) -> None:
    """A clock that was set back must not lose writes."""
    assert successor(highest, 7, wall) > highest
