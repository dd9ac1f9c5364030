"""A fake device for tests: memory that the host cannot access, with capacity, latency and failures.

It implements the whole device contract asynchronously, as a GPU does. So a chunk that is reused too
early, or memory that is read too early, shows as wrong data.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from memories.codecs import Codec, Parts
from memories.codecs.base import DeviceBuffer
from memories.codecs.buffers import EMPTY, view_bytes
from memories.codecs.registry import add
from memories.devices.base import Device, DeviceFullError, DeviceLostError, DevicePiece
from memories.devices.staging import ByteArray, CopyStream, Fence, Staging


class FakeDevice(Device):
    """A device whose memory only its own methods access.

    Args:
        capacity_bytes: The size of its memory.
        latency_seconds: The duration of each transfer through a chunk.
        chunk_bytes: The size of a staging chunk.
    """

    library = "torch"  # The library that a handover would target.

    def __init__(
        self,
        capacity_bytes: int = 1 << 30,
        *,
        name: str = "fake:0",
        latency_seconds: float = 0.0,
        chunk_bytes: int = 1 << 16,
    ) -> None:
        super().__init__()
        self.name = name
        self.title = f"a fake device of {capacity_bytes} B"
        self.capacity_bytes = capacity_bytes
        self.used_bytes = 0
        self.lost = False
        self.trims = 0
        self._staging = Staging(
            _FakeStream(self, latency_seconds), chunk_bytes=chunk_bytes, chunks=2
        )

    def tensor(self, array: npt.ArrayLike) -> FakeTensor:
        """Return a tensor on this device, allocated outside all budgets."""
        value = np.ascontiguousarray(array)
        memory = self._allocate(value.nbytes)
        memory.block.cells[:] = value.reshape(-1).view(np.uint8)
        return FakeTensor(memory, value.dtype, value.shape)

    def _allocate(self, nbytes: int) -> FakeMemory:
        self.require_alive()
        if self.used_bytes + nbytes > self.capacity_bytes:
            raise DeviceFullError(f"{self.name} has {self.used_bytes} of {self.capacity_bytes} B")
        self.used_bytes += nbytes
        block = FakeBlock(nbytes)
        weakref.finalize(block, self._free, nbytes).atexit = False
        return FakeMemory(self, block, 0, nbytes)

    def _free(self, nbytes: int) -> None:
        self.used_bytes -= nbytes

    def require_alive(self) -> None:
        """Raise DeviceLostError if the device has failed."""
        if self.lost:
            raise DeviceLostError(f"{self.name} failed: it fell off the bus")

    def upload(self, target: Any, pieces: Iterable[DevicePiece]) -> None:
        """Copy from the host, by chunks."""
        self.require_own()
        self._staging.upload(target, pieces)

    def download(self, source: Any, pieces: Iterable[DevicePiece]) -> None:
        """Copy to the host, by chunks."""
        self.require_own()
        self._staging.download(source, pieces)

    def copy(self, target: Any, pieces: Iterable[DevicePiece]) -> None:
        """Copy within the device."""
        self.require_own()
        self.require_alive()
        for offset, memory in pieces:
            target.cells[offset : offset + memory.nbytes] = memory.cells

    def view(self, memory: Any, offset: int, nbytes: int) -> FakeMemory:
        """Return a view."""
        return FakeMemory(self, memory.block, memory.start + offset, nbytes)

    def nbytes(self, memory: Any) -> int:
        """Return its size."""
        return int(memory.nbytes)

    def wrap(self, foreign: Any) -> FakeMemory:
        """Return the memory itself: there is only one library."""
        assert isinstance(foreign, FakeMemory)
        return foreign

    def owner(self, memory: Any) -> FakeBlock:
        """Return the allocation."""
        block: FakeBlock = memory.block
        return block

    def record_event(self) -> Callable[[], None]:
        """Return an event that has happened: copies within the device are synchronous."""
        return self.require_alive

    def room(self) -> int:
        """Return the bytes that are not allocated."""
        return max(0, self.capacity_bytes - self.used_bytes)

    def trim(self) -> None:
        """Count the calls."""
        self.trims += 1


class FakeBlock:
    """One allocation."""

    def __init__(self, nbytes: int) -> None:
        self.cells = np.zeros(nbytes, np.uint8)


class FakeMemory:
    """A range of an allocation."""

    def __init__(self, device: FakeDevice, block: FakeBlock, start: int, nbytes: int) -> None:
        self.device = device
        self.block = block
        self.start = start
        self.nbytes = nbytes

    @property
    def cells(self) -> ByteArray:
        """Return its bytes, for the methods of the device only."""
        return self.block.cells[self.start : self.start + self.nbytes]


class FakeTensor:
    """A value that lives on a fake device, as a CUDA tensor lives on a GPU."""

    def __init__(self, memory: FakeMemory, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self.memory = memory
        self.dtype = dtype
        self.shape = shape

    def numpy(self) -> npt.NDArray[Any]:
        """Return a copy of its data."""
        return self.memory.cells.copy().view(self.dtype).reshape(self.shape)

    def fill(self, value: float) -> None:
        """Write into its memory."""
        self.memory.cells.view(self.dtype)[:] = value


class FakeTensorCodec(Codec):
    """Encodes tensors of fake devices; without a device they are decoded as arrays."""

    name = "testing.tensor"
    private = True

    def encode(self, value: FakeTensor) -> Parts:
        """Return parts that refer to the device's memory."""
        memory = value.memory
        meta = {
            "dtype": value.dtype.str, "shape": list(value.shape), "device": memory.device.name
        }  # fmt: skip
        if not memory.nbytes:
            return Parts(self.name, meta, (EMPTY,))
        far = DeviceBuffer(
            memory=memory,
            nbytes=memory.nbytes,
            device=memory.device.name,
            address=id(memory.block) + memory.start,
            fetch=lambda: view_bytes(memory.cells.copy()),
        )
        return Parts(self.name, meta, (EMPTY,), frozenset(), {0: far})

    def decode(self, parts: Parts, *, writable: bool = False) -> Any:
        """Return a tensor over device memory, or an array without device memory."""
        dtype, shape = np.dtype(parts.meta["dtype"]), tuple(parts.meta["shape"])
        if parts.far:
            return FakeTensor(parts.far[0].memory, dtype, shape)
        array = np.frombuffer(parts.buffers[0], dtype).reshape(shape)
        return array if writable else array.copy()

    def home(self, meta: Any) -> str:
        """Return the device of the tensor."""
        return str(meta["device"])

    def rehome(self, meta: Any, device: str) -> Any:
        """Return the description of the tensor on another device."""
        return {**meta, "device": device}


class _FakeStream(CopyStream):
    """Copies that are made when they are waited for, not earlier."""

    def __init__(self, device: FakeDevice, latency_seconds: float) -> None:
        self._device = device
        self._latency_seconds = latency_seconds

    def allocate_pinned(self, nbytes: int) -> ByteArray:
        return np.zeros(nbytes, np.uint8)

    def start_upload(self, chunk: ByteArray, target: Any, offset: int) -> Fence:
        def land() -> None:
            self._travel()
            target.cells[offset : offset + chunk.nbytes] = chunk

        return land

    def start_download(self, source: Any, offset: int, chunk: ByteArray) -> Fence:
        def land() -> None:
            self._travel()
            chunk[:] = source.cells[offset : offset + chunk.nbytes]

        return land

    def _travel(self) -> None:
        self._device.require_alive()
        if self._latency_seconds:
            time.sleep(self._latency_seconds)


def register() -> None:
    """Register the codec of fake tensors."""
    add(FakeTensorCodec(), FakeTensor)
