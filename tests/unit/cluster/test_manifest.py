"""Manifests and chunks of large values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memories.cluster.manifest import (
    ChunkManifest,
    chunk_sum,
    cut,
    new_upload,
    read_manifest,
    read_upload,
    upload_of,
    upload_seconds,
)
from memories.errors import CorruptDataError


@given(st.lists(st.binary(max_size=50)), st.integers(1, 40))
def test_chunks_are_the_bytes_of_the_segments_in_order(parts: list[bytes], size: int) -> None:
    """Chunks cut across segments, without a copy."""
    chunks = [b"".join(chunk) for chunk in cut([memoryview(part) for part in parts], size)]
    assert b"".join(parts) == b"".join(chunks)
    assert all(len(chunk) == size for chunk in chunks[:-1])
    for chunk in cut([memoryview(part) for part in parts], size):
        assert chunk_sum([memoryview(b"".join(chunk))]) == chunk_sum(chunk)


@given(st.integers(1, 10**13), st.floats(0, 2e9), st.integers(1, 40))
def test_a_manifest_is_read_as_it_was_packed(nbytes: int, wall: float, nodes: int) -> None:
    """Whatever the size, the number of chunks stays bounded, and so does the manifest."""
    upload, chunk_bytes = new_upload(nbytes, wall, nodes)
    if upload.chunks > 2000:
        assert upload.chunks <= 8192 or chunk_bytes > 1 << 29
        return
    manifest = ChunkManifest(upload, nbytes, chunk_bytes, tuple(range(upload.chunks)))
    spans = list(manifest.spans())
    assert nbytes == spans[-1][1] and len(spans) == upload.chunks
    assert manifest == read_manifest(manifest.pack())
    assert abs(wall - upload_seconds(upload.id)) < 0.01
    assert {upload.id} == {upload_of(name) for name in upload.names()}


@pytest.mark.parametrize(
    ("nbytes", "nodes", "expected"),
    [
        (8_000_200, 3, (3, 2_666_734)),
        (8_000_200, 1, (2, 4_000_100)),
        (14_000_000, 3, (6, 2_333_334)),
        (1_500_000, 10, (2, 1 << 20)),
        ((4 << 20) * 8192, 3, (8192, 4 << 20)),
    ],
)
def test_each_node_can_get_as_many_chunks(
    nbytes: int, nodes: int, expected: tuple[int, int]
) -> None:
    """With two chunks for three nodes one of them has twice as much to do as the others."""
    upload, chunk_bytes = new_upload(nbytes, 0.0, nodes)
    assert expected == (upload.chunks, chunk_bytes)


@given(st.binary(max_size=200))
def test_garbage_is_refused_as_a_manifest(garbage: bytes) -> None:
    """Memory is allocated by its sizes, so they must be checked first."""
    with pytest.raises(CorruptDataError):
        read_manifest(garbage)


def test_a_manifest_that_contradicts_itself_is_refused() -> None:
    """A declared size of a terabyte behind one chunk would take all memory."""
    upload, _ = new_upload(1, 0)
    for nbytes, chunk_bytes, sums in ((10**12, 10**12, (1,)), (9, 4, (1,)), (0, 4, ()), (4, 0, ())):
        with pytest.raises(CorruptDataError):
            read_manifest(ChunkManifest(upload, nbytes, chunk_bytes, sums).pack())


@pytest.mark.parametrize("count", [b"00989680", b"ffffffff", b"00000000", b"-0000001", b"0x000001"])
def test_a_register_that_claims_millions_of_chunks_is_refused(count: bytes) -> None:
    """Each of them would get a name and a request, when it is read, repaired or removed."""
    upload, _ = new_upload(1, 0)
    with pytest.raises(CorruptDataError):
        read_upload(upload.id + count)
