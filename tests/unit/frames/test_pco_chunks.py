"""Numbers as pcodec stores them: bit for bit, where it pays, and named where it is missing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memories import MemoryManager, codecs
from memories.errors import CorruptDataError
from memories.foundation.optional_imports import MissingPackageError
from memories.frames import compression, pco_chunks, writer
from memories.frames.reader import open_frame
from memories.frames.recompress import recompress
from memories.testing.codecs import identical, through_frame

pytest.importorskip("pcodec", reason="pcodec is not installed")

RNG = np.random.default_rng(3)
KINDS = ("i2", "i4", "i8", "u2", "u4", "u8", "f2", "f4", "f8")
GROUND = (np.add.outer(RNG.normal(0, 9, 400), RNG.normal(0, 9, 300)) * 20).cumsum(1).astype("<i2")
PRICES = (RNG.normal(0, 0.2, 60_000).cumsum() + 500).round(2)
TIMES = (np.arange(60_000) * 60_000_000_000 + RNG.integers(0, 9, 60_000)).astype("M8[ns]")
VALUES: dict[str, Any] = {"ground": GROUND, "prices": PRICES, "times": TIMES}


def frame_of(value: Any, spec: str = "high") -> bytes:
    """Return the bytes of a frame."""
    return writer.pack(codecs.encode(value), key="k", version=1, compression=spec).join()


def compressors(frame: bytes) -> set[int]:
    """Return the codes of the compressors in a frame."""
    return {piece.compressor for piece in open_frame(frame).pieces}


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(KINDS), st.integers(0, 400))
def test_any_bytes_come_back(data: bytes, kind: str, step: int) -> None:
    """Whatever they mean as numbers: NaNs with their bits, and a rest that is no number."""
    packed = memoryview(pco_chunks.pack(memoryview(data), pco_chunks.Numbers(kind, step)))
    target = np.empty(len(data), np.uint8)
    pco_chunks.unpack(packed, target)
    assert data == target.tobytes()


@pytest.mark.parametrize("kind", [*(f"<{kind}" for kind in KINDS), "<c8", "<c16", "<m8[us]"])
def test_arrays_of_every_kind_of_number_come_back(kind: str) -> None:
    """In several chunks, in both orders, and in a tree."""
    array = RNG.normal(0, 50, (700, 611)).cumsum(0).round().astype(kind)
    if array.dtype.kind == "f":
        array[3, 5], array[4, 6] = -0.0, np.nan
    for value in (array, np.asfortranarray(array), {"a": array, "b": [array[:50]]}):
        assert identical(value, through_frame(value, "high"))
    if array.dtype.kind in "iu":
        assert {compression.PCODEC} == compressors(frame_of(array))


def test_a_region_of_numbers_is_the_region(tmp_path: Path) -> None:
    """A chunk is decompressed by itself."""
    array = np.tile(GROUND, (20, 1))
    with MemoryManager(storage_path=tmp_path, compression={"cold": "high"}) as manager:
        manager.store("k", array, "cold")
        for rows in (slice(0, 5), slice(2100, 2500), slice(7990, 8000)):
            assert identical(array[rows, 7:], manager.retrieve("k", region=(rows, slice(7, None))))


@pytest.mark.parametrize("name", VALUES)
def test_it_is_chosen_where_it_is_smaller(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the archive only: elsewhere a value must not need a package more."""
    value, other = VALUES[name], np.frombuffer(RNG.bytes(100_000), "<i4")
    frame = frame_of(value)
    assert {compression.PCODEC} == compressors(frame)
    assert {compression.RAW} == compressors(frame_of(other))
    for spec in ("auto", "fast", "zstd:9"):
        assert compression.PCODEC not in compressors(frame_of(value, spec))
    anew = recompress(open_frame(frame_of(value, "fast")), "high")
    assert anew is not None
    assert {compression.PCODEC} == compressors(anew.join())
    assert identical(value, codecs.decode(open_frame(anew.join()).parts()))
    monkeypatch.setattr(pco_chunks, "is_installed", lambda: False)
    assert len(frame) * 1.05 < len(frame_of(value))


def test_values_of_one_size_class_with_other_numbers_come_back() -> None:
    """The next value is compressed like the last one of about its size, whatever its dtype is."""
    from memories.frames.compression_history import CompressionHistory

    history = CompressionHistory()
    for value in (GROUND[0].copy(), np.arange(601, dtype="u1"), PRICES[:70], GROUND[:1, :299]):
        parts = codecs.encode(value)
        frame = writer.pack(parts, key="k", version=1, compression="high", history=history)
        assert identical(value, codecs.decode(open_frame(frame.join()).parts()))


@pytest.mark.parametrize(
    "head",
    [
        b"", b"i2\0\0", b"x2\0\0\0\0\0\0", b"i2\2\0\0\0\0\0", b"i2\1\0\0\0\0\0",
        b"i8\0\0\xff\xff\xff\xff", b"f4\0\1\0\0\0\0",
    ],
)  # fmt: skip
def test_a_head_that_means_nothing_is_refused(head: bytes) -> None:
    """Before pcodec gets what follows."""
    for chunk in (head, head + b"rest" if head[2:3] not in b"\1" else head):
        with pytest.raises(CorruptDataError):
            pco_chunks.unpack(memoryview(chunk), np.empty(64, np.uint8))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_chunks_are_refused_or_numbers(data: st.DataObject) -> None:
    """Never another error, a panic or a write beyond the memory that is to be filled."""
    whole = bytearray(pco_chunks.pack(memoryview(PRICES[:500]).cast("B"), pco_chunks.Numbers("f8")))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    keep = data.draw(st.integers(0, len(whole)) | st.just(len(whole)))
    size = data.draw(st.sampled_from([4000, 8, 0, 4001, 8000]))
    room = np.zeros(size + 64, np.uint8)
    try:
        pco_chunks.unpack(memoryview(bytes(whole[:keep])), room[:size])
    except CorruptDataError:
        pass
    assert not room[size:].any()


def test_without_pcodec_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what lies in the archive is whole, once pcodec is back."""
    options = {"storage_path": tmp_path / "s", "glacier_url": f"file://{tmp_path}/archive"}
    with MemoryManager(glacier_memory_enabled=True, **options) as manager:
        manager.store("ground", GROUND, "glacier")
        manager.store("text", "to and fro " * 5000, "glacier")
    pco_chunks._library.cache_clear()
    with MemoryManager(glacier_memory_enabled=True, **options) as manager:
        with monkeypatch.context() as without:
            for name in [name for name in sys.modules if name.split(".")[0] == "pcodec"]:
                without.setitem(sys.modules, name, None)
            with pytest.raises(
                MissingPackageError, match="pcodec is not installed; run: pip install"
            ):
                manager.retrieve("ground")
            assert "to and fro " * 5000 == manager.retrieve("text")
        assert identical(GROUND, manager.retrieve("ground"))
    assert importlib.util.find_spec("pcodec") is not None
