"""The pure parts of cluster: placement, versions, registers, manifests and quorum rules."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memories.cluster.client.scan import pattern
from memories.cluster.incarnation import UP, Incarnation, read_incarnation
from memories.cluster.manifest import (
    ChunkManifest,
    chunk_sum,
    cut,
    new_upload,
    read_manifest,
    upload_of,
    upload_seconds,
)
from memories.cluster.quorum.rules import RegisterQuery
from memories.cluster.register_copy import read_copy
from memories.cluster.register_format import (
    RegisterKind,
    key_of,
    pack_register,
    read_body,
    read_header,
    register_name,
)
from memories.cluster.rendezvous import prefer, rank
from memories.cluster.versions import ABSENT, RegisterVersion, successor
from memories.errors import CorruptDataError, UnavailableError

NODES = [f"node{number}:6379" for number in range(10)]
VERSIONS = st.builds(RegisterVersion, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
KEYS = st.text(min_size=1, max_size=20).filter(lambda key: "\0" not in key).map(str)


def encodable(key: str) -> bool:
    """Return whether a text can be a key."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def test_a_node_that_comes_or_goes_moves_only_its_share() -> None:
    """Of n nodes one n-th of the keys moves, and no key moves between two that stay."""
    names = [b"key %d" % number for number in range(4000)]
    before = {name: rank(name, NODES)[0] for name in names}
    after = {name: rank(name, NODES[:-1])[0] for name in names}
    moved = [name for name in names if before[name] != after[name]]
    assert {NODES[-1]} == {before[name] for name in moved}
    assert 300 < len(moved) < 500
    assert max(Counter(before.values()).values()) < 1.3 * 400


@given(st.binary(min_size=1), st.integers(1, 10), st.integers(1, 5))
def test_any_answers_of_a_list_include_a_node_that_took_the_write(
    name: bytes, count: int, copies: int
) -> None:
    """The inequality on which the protocol is based."""
    if copies > count:
        return
    one = prefer(name, NODES[:count], copies)
    assert min(count, 2 * copies - 1) == len(one.nodes)
    for taken in combinations(one.nodes, one.copies):
        for asked in combinations(one.nodes, one.answers):
            assert set(taken) & set(asked)


@given(VERSIONS, VERSIONS)
def test_versions_sort_on_a_server_as_they_do_here(
    one: RegisterVersion, other: RegisterVersion
) -> None:
    """A server compares their texts."""
    assert (one < other) == (one.text < other.text)
    assert one == RegisterVersion.parse(one.text)


@given(VERSIONS.filter(lambda one: one.counter < 2**63), st.floats(0, 2e9))
def test_a_write_is_newer_than_all_it_has_learnt_of(highest: RegisterVersion, wall: float) -> None:
    """A clock that was set back must not lose writes."""
    assert successor(highest, 7, wall) > highest


@given(KEYS.filter(encodable), VERSIONS, st.binary(max_size=300), st.integers(0), st.integers(0, 7))
def test_every_flipped_bit_of_a_register_is_found(
    key: str, version: RegisterVersion, body: bytes, place: int, bit: int
) -> None:
    """A header with a wrong version would replace newer values, or be replaced by older ones."""
    name = register_name(key)
    assert key == key_of(name)
    data = bytearray(b"".join(pack_register(name, version, RegisterKind.VALUE, [memoryview(body)])))
    header = read_header(name, data)
    assert (version, RegisterKind.VALUE) == (header.version, header.kind)
    assert body == read_body(name, header, data)
    data[place % len(data)] ^= 1 << bit
    with pytest.raises(CorruptDataError):
        read_copy(name, bytes(data), whole=True)
    data[place % len(data)] ^= 1 << bit
    with pytest.raises(CorruptDataError):
        read_header(register_name(key + "x"), data)


@given(st.lists(st.binary(max_size=50)), st.integers(1, 40))
def test_chunks_are_the_bytes_of_the_segments_in_a_row(parts: list[bytes], size: int) -> None:
    """Chunks cut across segments, without a copy."""
    chunks = [b"".join(chunk) for chunk in cut([memoryview(part) for part in parts], size)]
    assert b"".join(parts) == b"".join(chunks)
    assert all(len(chunk) == size for chunk in chunks[:-1])
    for chunk in cut([memoryview(part) for part in parts], size):
        assert chunk_sum([memoryview(b"".join(chunk))]) == chunk_sum(chunk)


@given(st.integers(1, 10**13), st.floats(0, 2e9))
def test_a_manifest_says_what_it_was_told(nbytes: int, wall: float) -> None:
    """Whatever the size, the number of chunks stays bounded, and so does the manifest."""
    upload, chunk_bytes = new_upload(nbytes, wall)
    if upload.chunks > 2000:
        assert upload.chunks <= 8192 or chunk_bytes > 1 << 29
        return
    manifest = ChunkManifest(upload, nbytes, chunk_bytes, tuple(range(upload.chunks)))
    spans = list(manifest.spans())
    assert nbytes == spans[-1][1] and len(spans) == upload.chunks
    assert manifest == read_manifest(manifest.pack())
    assert abs(wall - upload_seconds(upload.id)) < 0.01
    assert {upload.id} == {upload_of(name) for name in upload.names()}


@given(st.binary(max_size=200))
def test_garbage_is_no_manifest(garbage: bytes) -> None:
    """Memory is allocated by its sizes, so they must be checked first."""
    with pytest.raises(CorruptDataError):
        read_manifest(garbage)


def test_a_manifest_that_contradicts_itself_is_refused() -> None:
    """A declared size of a terabyte behind one chunk would take all memory."""
    upload, _ = new_upload(1, 0)
    for nbytes, chunk_bytes, sums in ((10**12, 10**12, (1,)), (9, 4, (1,)), (0, 4, ()), (4, 0, ())):
        with pytest.raises(CorruptDataError):
            read_manifest(ChunkManifest(upload, nbytes, chunk_bytes, sums).pack())


@pytest.mark.parametrize("text", [None, b"", b"up", b"up:life", b"xx:life:1", b"up:life:one"])
def test_what_is_no_mark_gives_no_say(text: bytes | None) -> None:
    """A node with a damaged mark counts as one that restarted."""
    assert read_incarnation(text) is None
    assert Incarnation(UP, "life", 3) == read_incarnation(Incarnation(UP, "life", 3).text)


@given(st.binary(max_size=8))
def test_a_prefix_matches_only_itself(prefix: bytes) -> None:
    """A key may hold any sign that means something in a glob."""
    glob = pattern(prefix)
    assert glob.endswith(b"*")
    literal, escaped = bytearray(), False
    for sign in glob[:-1]:
        if sign == ord("\\") and not escaped:
            escaped = True
            continue
        assert escaped or sign not in b"*?[]\\^"
        literal.append(sign)
        escaped = False
    assert prefix == literal


def query() -> RegisterQuery:
    """Return a query over three nodes, with two copies."""
    return RegisterQuery(b"m:r:key", [prefer(b"m:r:key", NODES[:3], 2)])


def reply(version: RegisterVersion, *, whole: bool = True) -> bytes:
    """Return the reply of a node with that version."""
    return b"".join(pack_register(b"m:r:key", version, RegisterKind.VALUE, [memoryview(b"body")]))


def test_nodes_that_do_not_vote_do_not_make_a_key_absent() -> None:
    """Two nils of which one is from a restarted node count as one."""
    one = query()
    first, second, third = one.nodes
    assert [first, second] == one.next_nodes(hedge=False, among=lambda node: True)
    nothing = read_copy(one.name, None, whole=True)
    one.record(first, nothing, voting=True)
    one.record(second, nothing, voting=False)
    assert 1 == one.missing_answers
    assert isinstance(one.error(), UnavailableError)
    one.record(third, nothing, voting=True)
    assert (0, ABSENT, 0) == (one.missing_answers, one.version, one.missing_copies)


def test_the_newest_version_is_short_of_copies_until_enough_have_it() -> None:
    """A value on one node may be a write in doubt: it is written back before it is returned."""
    one = query()
    first, second, third = one.nodes
    newer, older = RegisterVersion(2, 1), RegisterVersion(1, 9)
    one.record(first, read_copy(one.name, reply(older), whole=True), voting=True)
    one.record(second, read_copy(one.name, reply(newer), whole=True), voting=True)
    assert (newer, 1, [second], [first]) == (
        one.version,
        one.missing_copies,
        one.holders,
        one.outdated_nodes,
    )
    one.record(third, read_copy(one.name, reply(newer), whole=True), voting=True)
    assert 0 == one.missing_copies


def test_damage_is_told_from_absence_and_from_silence() -> None:
    """The three need different actions."""
    one = query()
    first, second, _ = one.nodes
    one.record_damage(first)
    one.record_fault(second, "did not answer")
    assert 2 == one.missing_answers
    one.record_damage(second)
    assert isinstance(one.error(), CorruptDataError)
