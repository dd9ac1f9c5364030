"""The way to a device: bounded, and no chunk is touched before the device is through with it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from memories.devices.base import DevicePiece, layout
from memories.devices.staging import chunk_loads
from memories.testing.fake_device import FakeDevice

SIZES = st.lists(st.integers(0, 5000), max_size=40)


@given(SIZES, st.sampled_from([64, 1000, 4096]))
def test_what_goes_over_comes_back(sizes: list[int], chunk_bytes: int) -> None:
    """Copies land late on this device, so a chunk reused too early would show."""
    device = FakeDevice(chunk_bytes=chunk_bytes)
    buffers = [np.random.default_rng(n).bytes(n) for n in sizes]
    offsets, nbytes = layout(sizes)
    memory = device.allocate(nbytes)
    pieces = [DevicePiece(at, memoryview(b)) for at, b in zip(offsets, buffers, strict=True)]
    device.upload(memory, pieces)
    targets = [bytearray(n) for n in sizes]
    wanted = [DevicePiece(at, memoryview(t)) for at, t in zip(offsets, targets, strict=True)]
    device.download(memory, wanted)
    assert buffers == [bytes(target) for target in targets]


def test_small_buffers_share_a_chunk() -> None:
    """A hundred thousand small tensors cost as many transfers as their bytes need."""
    offsets, _ = layout([100] * 1000)
    pieces = [(at, memoryview(bytes(100))) for at in offsets]
    assert 4 == len(list(chunk_loads(pieces, 64_000)))


def test_a_device_that_is_gone_says_what_is_lost_and_what_is_not() -> None:
    """A user who sees a driver's number does not know what to do."""
    device = FakeDevice()
    memory = device.allocate(10)
    device.lost = True
    try:
        device.download(memory, [DevicePiece(0, memoryview(bytearray(10)))])
    except OSError as error:
        assert "fake:0 failed" in str(error)
    else:
        raise AssertionError("a lost device answered")
