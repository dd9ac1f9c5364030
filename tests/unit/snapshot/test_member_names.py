"""Member names: safe wherever they are unpacked, readable, and never shared."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from memories.snapshot.member_names import LONGEST_BYTES, RESERVED, member_name

KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
NASTY = st.text(st.sampled_from("./%\\a:~_C"), min_size=1, max_size=12)


@pytest.mark.parametrize("key", ["matrix_1", "S2A/T32TMT/B04", "żółw 🐢", "band:4", "...", "x.npz"])
def test_a_plain_key_is_its_own_member_name(key: str) -> None:
    """`numpy.load(path)["matrix_1"]` must work without knowing any rule."""
    assert key + ".npy" == member_name(key, npy=True)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("../x", "%2E%2E/x"),
        ("/etc/passwd", "%/etc/passwd"),
        ("a//b/", "a/%/b/%"),
        ("./a", "%2E/a"),
        ("a\\..\\b", "a%5C..%5Cb"),
        ("C:x", "C%3Ax"),
        ("100%", "100%25"),
        ("\x1b[2J", "%1B[2J"),
        ("a.npy", "a%2Enpy"),
        ("a.frame", "a%2Eframe"),
        ("__memories__/manifest", "%5F_memories__/manifest"),
    ],
)
def test_what_could_do_harm_is_escaped(key: str, name: str) -> None:
    """A name must not climb, cut, clear a terminal, or be taken for another member."""
    assert name + ".frame" == member_name(key, npy=False)


@given(KEYS | NASTY)
@example("a" * 4096)
@example("🐢" * 1000)
@example("/" * 4096)
def test_every_name_is_safe_and_short(key: str) -> None:
    """Whatever the key, unpacking the file stays inside the directory it is unpacked to."""
    name = member_name(key, npy=True)
    assert len(name.encode()) <= LONGEST_BYTES + 6
    assert not set(PurePosixPath(name).parts) & {"/", ".", ".."}
    assert "//" not in name
    assert "\\" not in name
    assert name.isprintable()
    assert not name.startswith(RESERVED)


@given(st.lists(KEYS | NASTY, unique=True, min_size=2, max_size=20), st.booleans())
def test_no_two_keys_share_a_name(keys: list[str], npy: bool) -> None:
    """Two members of one name would make one value unreachable for other tools."""
    assert len(keys) == len({member_name(key, npy=npy) for key in keys})


def test_long_keys_with_one_beginning_get_different_names() -> None:
    """The hash covers the whole key, not the part that is shown."""
    names = {member_name("x" * 400 + end, npy=True) for end in ("a", "b")}
    assert 2 == len(names)
