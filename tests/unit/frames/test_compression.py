"""Compression of single chunks: what a signal leaves behind, and what is refused."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from textwrap import dedent

import numpy as np
import pytest

from memories.errors import CorruptDataError
from memories.frames import compression
from memories.frames.compression import Method


def test_a_signal_leaves_no_lock_of_the_library_taken() -> None:
    """Ctrl-C in one `store` left a lock locked, and a later call waited for ever; in reads, too."""
    code = """
        import random, signal
        import numpy as np
        from memories.frames import compression
        from memories.frames.compression import Method

        def interrupt(*_):
            raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, interrupt)
        chunk, method, struck = memoryview(bytes(20_000)), Method("lz4", 5), 0
        small, target = bytes(chunk[:2000]), np.empty(20_000, np.uint8)
        random.seed(1)
        packed = memoryview(compression.compress(chunk, method))
        packed_small = compression.compress_small(small, method)
        works = [
            lambda: compression.compress(chunk, method),
            lambda: compression.compress_small(small, method),
            lambda: compression.decompress(packed, target),
            lambda: compression.decompress_small(packed_small, 2000),
        ]
        while struck < 1600:
            work = works[struck % 4]
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 1e-4))
                try:
                    while True:
                        work()
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                struck += 1
        for work in works:
            work()
        print(small == compression.decompress_small(packed_small, 2000))
    """
    done = subprocess.run(
        [sys.executable, "-c", dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert "True\n" == done.stdout, done.stderr


@pytest.mark.parametrize("name", ["lz4", "lz4hc", "zstd", "blosclz", "zlib"])
@pytest.mark.parametrize("shuffle", [0, 1, 2])
def test_every_compressor_gives_back_what_it_took(name: str, shuffle: int) -> None:
    """The C functions are called by us: their arguments must be in their order."""
    data = np.arange(10_000, dtype=np.int32) // 100
    chunk = memoryview(data).cast("B")
    packed = compression.compress(chunk, Method(name, 3, shuffle, 4))
    assert len(packed) < chunk.nbytes
    target = np.empty(chunk.nbytes, np.uint8)
    compression.decompress(memoryview(packed), target)
    assert chunk == memoryview(target)


def test_a_damaged_chunk_is_refused() -> None:
    """A header that is right does not make what follows it right."""
    packed = bytearray(compression.compress(memoryview(bytes(50_000)), Method("zstd", 3)))
    packed[16:] = b"\xff" * (len(packed) - 16)
    with pytest.raises(CorruptDataError):
        compression.decompress(memoryview(packed), np.empty(50_000, np.uint8))


def test_high_takes_no_longer_than_pays() -> None:
    """Prices took four times as long at the highest level, and became 2 % smaller."""
    prices = np.round(np.random.default_rng(1).gamma(2.0, 30.0, 200_000), 2)
    words = " ".join(f"user{n % 977} bought item {n * 7919 % 10007} at {n}" for n in range(20_000))
    spec = compression.parse_spec("high")
    levels = []
    for buffer in (memoryview(prices).cast("B"), memoryview(words.encode())):
        method = compression.choose_method(buffer, spec, (8,))
        assert method is not None
        levels.append(method.level)
    assert [3, 6] == levels


@pytest.mark.parametrize("level", [1, 5, 9])
def test_small_chunks_are_those_of_blosc(level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte for byte, whichever way makes them; and both ways read them."""
    random.seed(level)
    words = [b"tile", b"name", b"12345", b"\0\0\0\0", b", ", os.urandom(3)]
    for size in [512, 513, 700, 1023, 1024, 4000, 4096, 8192]:
        data = b"".join(random.choices(words, k=size))[:size]
        packed = compression.compress_small(data, Method("lz4", level))
        with monkeypatch.context() as patch:
            patch.setattr(compression, "MIN_NBYTES", 10_000)
            assert packed == compression.compress_small(data, Method("lz4", level))
        assert len(packed) < size
        assert data == compression.decompress_small(packed, size)
        with monkeypatch.context() as patch:
            patch.setattr(compression, "_PLAIN_LZ4", 0xFF)
            assert data == compression.decompress_small(packed, size)
        assert compression.decompress_small(packed, size + 1) is None
        assert compression.decompress_small(packed[:-1], size) is None


@pytest.mark.parametrize("shuffle", [0, 1])
def test_a_damaged_small_chunk_harms_nothing(shuffle: int) -> None:
    """It is refused, or gives as many bytes as were asked for: a checksum comes before it."""
    packed = compression.compress_small(b"tile 12345 " * 100, Method("lz4", 5, shuffle, 4))
    assert b"tile 12345 " * 100 == compression.decompress_small(packed, 1100)
    for at in range(len(packed)):
        for bit in range(8):
            damaged = bytearray(packed)
            damaged[at] ^= 1 << bit
            found = compression.decompress_small(bytes(damaged), 1100)
            assert found is None or len(found) == 1100


def test_noise_does_not_become_smaller() -> None:
    """Blosc stores it as it is."""
    noise = os.urandom(1024)
    packed = compression.compress_small(noise, Method("lz4", 5))
    assert len(packed) > 1024
    assert noise == compression.decompress_small(packed, 1024)
