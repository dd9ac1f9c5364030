"""A region of a frame that is far away is read by few requests and few bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from memories import CorruptDataError, codecs
from memories.frames import writer
from memories.frames.range_reader import open_partial

ARRAY = np.random.default_rng(0).random((4096, 512))  # Rows of 4 KB, 16 chunks.


class Far:
    """The bytes of a frame, which counts the requests and bytes that are asked of it."""

    def __init__(self) -> None:
        self.frame = writer.pack(codecs.encode(ARRAY), key="k", version=1).join()
        self.requests: list[int] = []

    def fetch(self, spans: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Return the bytes of each span."""
        self.requests.append(sum(stop - start for start, stop in spans))
        return [memoryview(self.frame)[start:stop] for start, stop in spans]


def test_a_region_takes_two_requests_and_its_own_chunks() -> None:
    """Each request to a bucket takes tens of milliseconds, and each byte is paid for."""
    far = Far()
    frame = open_partial(far.fetch, len(far.frame), key="k")
    assert np.array_equal(ARRAY[300:310], frame.region(np.s_[300:310]))
    assert 2 == len(far.requests) and sum(far.requests) < len(far.frame) / 4
    assert np.array_equal(ARRAY[305], frame.region(305))
    assert 2 == len(far.requests)  # The chunk is here already.


def test_a_frame_of_another_key_or_a_damaged_chunk_is_an_error() -> None:
    """A wrong object under the right name must not become a wrong value."""
    far = Far()
    with pytest.raises(CorruptDataError):
        open_partial(far.fetch, len(far.frame), key="other").region(0)
    damaged = bytearray(far.frame)
    damaged[-1000] ^= 1
    far.frame = type(far.frame)(damaged)
    frame = open_partial(far.fetch, len(far.frame), key="k")
    assert np.array_equal(ARRAY[0], frame.region(0))
    with pytest.raises(CorruptDataError):
        frame.region(-1)
