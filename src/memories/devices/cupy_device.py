"""A device through CuPy, for processes without torch: its memory pool, its streams, its events."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property, partial
from typing import Any

import numpy as np

from memories.devices.base import Device, DevicePiece
from memories.devices.staging import ByteArray, CopyStream, Fence, Staging
from memories.foundation.optional_imports import require


class CupyDevice(Device):
    """The memory of one CUDA device; every block is a flat array of bytes."""

    library = "cupy"

    def __init__(self, name: str) -> None:
        super().__init__()
        self._cupy = require("cupy", extra="gpu")
        index = int(name.partition(":")[2] or 0)
        self._device = self._cupy.cuda.Device(index)
        self.name = f"cuda:{index}"
        self.title = f"GPU memory, {self.name} through CuPy"

    @cached_property
    def _staging(self) -> Staging:
        with self._device:
            return Staging(_CupyStream(self._cupy, self._device))

    def _allocate(self, nbytes: int) -> Any:
        with self._translated(nbytes), self._device:
            return self._cupy.empty(nbytes, "u1")

    def upload(self, target: Any, pieces: Iterable[DevicePiece]) -> None:
        """Copy by way of pinned chunks, on a stream of their own."""
        self.require_own()
        with self._translated(), self._device:
            self._staging.upload(target, pieces)

    def download(self, source: Any, pieces: Iterable[DevicePiece]) -> None:
        """Copy by way of pinned chunks, on a stream of their own."""
        self.require_own()
        with self._translated(), self._device:
            self._staging.download(source, pieces)

    def copy(self, target: Any, pieces: Iterable[DevicePiece]) -> None:
        """Copy each piece on the current stream."""
        self.require_own()
        with self._translated(), self._device:
            stream = self._cupy.cuda.get_current_stream()
            for offset, memory in pieces:
                place = target.data + offset
                place.copy_from_device_async(memory.data, memory.nbytes, stream)
            # The pool reuses memory without regard to streams, so this stream must be complete.
            stream.synchronize()

    def view(self, memory: Any, offset: int, nbytes: int) -> Any:
        """Return a view."""
        return memory[offset : offset + nbytes]

    def nbytes(self, memory: Any) -> int:
        """Return its number of items, which are bytes."""
        return int(memory.size)

    def wrap(self, foreign: Any) -> Any:
        """Return the bytes of a contiguous array, in the order of its memory."""
        cupy = self._cupy
        array = foreign if isinstance(foreign, cupy.ndarray) else cupy.from_dlpack(foreign)
        return array.reshape(-1).view("u1")

    def owner(self, memory: Any) -> Any:
        """Return the array at the root, which its views refer to."""
        return memory if memory.base is None else memory.base

    def record_event(self) -> Callable[[], None]:
        """Return nothing to wait for: every copy here is complete when it returns."""
        return _nothing

    def room(self) -> int:
        """Return what the device has free, and what CuPy's pool keeps without using it."""
        with self._translated():
            free, _ = self._device.mem_info
            return int(free + self._cupy.get_default_memory_pool().free_bytes())

    def trim(self) -> None:
        """Empty CuPy's pool."""
        with self._translated():
            self._cupy.get_default_memory_pool().free_all_blocks()

    def hook_allocator(self) -> Callable[[], None]:
        """Allocate through a function that makes room when the pool finds none."""
        cuda = self._cupy.cuda
        before = cuda.get_allocator()
        cuda.set_allocator(partial(self.with_room, before))
        return partial(cuda.set_allocator, before)

    def is_full(self, error: BaseException) -> bool:
        """Return whether CuPy ran out of the device's memory."""
        full = self._cupy.cuda.memory.OutOfMemoryError
        return super().is_full(error) or isinstance(error, full)


class _CupyStream(CopyStream):
    """Copies on a stream of their own."""

    def __init__(self, cupy: Any, device: Any) -> None:
        self._cupy = cupy
        self._device = device
        self._stream = cupy.cuda.Stream(non_blocking=True)

    def allocate_pinned(self, nbytes: int) -> ByteArray:
        memory = self._cupy.cuda.alloc_pinned_memory(nbytes)
        return np.frombuffer(memory, np.uint8, nbytes)

    def start_upload(self, chunk: ByteArray, target: Any, offset: int) -> Fence:
        self._after_caller()
        place = target.data + offset
        place.copy_from_host_async(chunk.ctypes.data, chunk.nbytes, self._stream)
        return self._fence()

    def start_download(self, source: Any, offset: int, chunk: ByteArray) -> Fence:
        self._after_caller()
        place = source.data + offset
        place.copy_to_host_async(chunk.ctypes.data, chunk.nbytes, self._stream)
        return self._fence()

    def _after_caller(self) -> None:
        """Make the copies wait for the work that the caller's stream has on the memory."""
        event = self._cupy.cuda.Event(disable_timing=True)
        event.record(self._cupy.cuda.get_current_stream())
        self._stream.wait_event(event)

    def _fence(self) -> Fence:
        event = self._cupy.cuda.Event(disable_timing=True)
        event.record(self._stream)
        fence: Fence = event.synchronize
        return fence


def _nothing() -> None:
    """Wait for nothing."""
