"""A device through torch: its allocator, its streams, its events.

It also runs on torch's CPU device, without streams and pinned memory, so that nearly all of it can
be tested on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

import numpy as np

from memories.devices.base import Device, DevicePiece
from memories.devices.staging import ByteArray, CopyStream, Fence, Staging
from memories.foundation.optional_imports import require
from memories.foundation.units import MAX_BYTES


class TorchDevice(Device):
    """The memory of one torch device; every block is a flat tensor of bytes."""

    library = "torch"

    def __init__(self, name: str) -> None:
        super().__init__()
        self._torch = require("torch", extra="gpu")
        self._device = self._torch.device(name)
        self.name = str(self._device)
        self._cuda = self._device.type == "cuda"
        self.title = f"{'GPU' if self._cuda else 'CPU'} memory, {self.name} through torch"

    @cached_property
    def _staging(self) -> Staging:
        """Made at the first transfer: a manager that moves nothing makes no CUDA context."""
        cuda = self._cuda
        return Staging(_CudaStream(self._torch, self._device) if cuda else _HostStream(self._torch))

    def _allocate(self, nbytes: int) -> Any:
        with self._translated(nbytes):
            return self._torch.empty(nbytes, dtype=self._torch.uint8, device=self._device)

    def upload(self, target: Any, pieces: Iterable[DevicePiece]) -> None:
        """Copy by way of pinned chunks, on a stream of their own."""
        self.require_own()
        with self._translated():
            self._staging.upload(target, pieces)

    def download(self, source: Any, pieces: Iterable[DevicePiece]) -> None:
        """Copy by way of pinned chunks, on a stream of their own."""
        self.require_own()
        with self._translated():
            self._staging.download(source, pieces)

    def copy(self, target: Any, pieces: Iterable[DevicePiece]) -> None:
        """Copy all pieces with one call, so that a hundred thousand small ones cost no more."""
        self.require_own()
        targets, sources = [], []
        for offset, memory in pieces:
            targets.append(target[offset : offset + memory.numel()])
            sources.append(memory)
        if not sources:
            return
        with self._translated(), self._torch.no_grad():
            self._torch._foreach_copy_(targets, sources)
            if self._cuda:
                # The allocator must not reuse a source before this stream has copied it.
                stream = self._torch.cuda.current_stream(self._device)
                for source in sources:
                    source.record_stream(stream)

    def view(self, memory: Any, offset: int, nbytes: int) -> Any:
        """Return a view."""
        return memory[offset : offset + nbytes]

    def nbytes(self, memory: Any) -> int:
        """Return its number of items, which are bytes."""
        return int(memory.numel())

    def wrap(self, foreign: Any) -> Any:
        """Return the bytes of a contiguous array, in the order of its memory."""
        torch = self._torch
        tensor = foreign if isinstance(foreign, torch.Tensor) else torch.from_dlpack(foreign)
        return tensor.reshape(-1).view(torch.uint8)

    def owner(self, memory: Any) -> Any:
        """Return the storage, which all views of the tensor share, its own object included."""
        return memory.untyped_storage()

    def record_event(self) -> Callable[[], None]:
        """Record an event on the current stream."""
        if not self._cuda:
            return _nothing
        cuda = self._torch.cuda
        event = cuda.Event()
        event.record(cuda.current_stream(self._device))
        return lambda: cuda.current_stream(self._device).wait_event(event)

    def room(self) -> int:
        """Return what the device has free, and what torch keeps without using it."""
        if not self._cuda:
            return MAX_BYTES
        cuda = self._torch.cuda
        with self._translated():
            free, _ = cuda.mem_get_info(self._device)
            kept = cuda.memory_reserved(self._device) - cuda.memory_allocated(self._device)
        return int(free + kept)

    def trim(self) -> None:
        """Empty torch's cache."""
        if self._cuda:
            self._torch.cuda.empty_cache()

    def is_full(self, error: BaseException) -> bool:
        """Return whether torch ran out of the device's memory."""
        kinds = (self._torch.OutOfMemoryError,) if hasattr(self._torch, "OutOfMemoryError") else ()
        return super().is_full(error) or isinstance(error, kinds)


class _CudaStream(CopyStream):
    """Copies on a stream of their own, ordered after the work that the caller's stream has."""

    def __init__(self, torch: Any, device: Any) -> None:
        self._torch = torch
        self._stream = torch.cuda.Stream(device)

    def allocate_pinned(self, nbytes: int) -> ByteArray:
        pinned: ByteArray = self._torch.empty(
            nbytes, dtype=self._torch.uint8, pin_memory=True
        ).numpy()
        return pinned

    def start_upload(self, chunk: ByteArray, target: Any, offset: int) -> Fence:
        part = target[offset : offset + chunk.nbytes]
        return self._run(part, self._torch.from_numpy(chunk), part)

    def start_download(self, source: Any, offset: int, chunk: ByteArray) -> Fence:
        part = source[offset : offset + chunk.nbytes]
        return self._run(self._torch.from_numpy(chunk), part, part)

    def _run(self, target: Any, source: Any, part: Any) -> Fence:
        cuda = self._torch.cuda
        # The memory was allocated, or written, in the order of the caller's stream.
        self._stream.wait_stream(cuda.current_stream(part.device))
        with cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
            event = cuda.Event()
            event.record(self._stream)
        part.record_stream(self._stream)
        fence: Fence = event.synchronize
        return fence


class _HostStream(CopyStream):
    """The same copies on the CPU, done at once."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch

    def allocate_pinned(self, nbytes: int) -> ByteArray:
        return np.empty(nbytes, np.uint8)

    def start_upload(self, chunk: ByteArray, target: Any, offset: int) -> Fence:
        target[offset : offset + chunk.nbytes].copy_(self._torch.from_numpy(chunk))
        return _nothing

    def start_download(self, source: Any, offset: int, chunk: ByteArray) -> Fence:
        self._torch.from_numpy(chunk).copy_(source[offset : offset + chunk.nbytes])
        return _nothing


def _nothing() -> None:
    """Wait for nothing: a copy on the CPU is complete when it returns."""
