"""The interface of a device: allocate its memory, and copy bytes into, within and out of it.

The library behind it has the allocator. When an allocation fails, the device asks the hot tier to
make room and tries again, for stores, reads and allocations of the program alike.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from memories.errors import ForkedError, StorageError, TierFullError
from memories.foundation.units import format_size

ALIGNMENT = 256  # Of CUDA allocations; any dtype may start at a multiple of it.
RETRIES = 4  # How often room is made for one allocation before it fails.


class DeviceFullError(TierFullError):
    """An allocation on the device failed, and no more values could leave it."""


class DeviceLostError(StorageError):
    """The device failed. Values that were only there are lost; copies in lower tiers are not."""


class DevicePiece(NamedTuple):
    """Bytes in the memory of the host or a device, and an offset in a block of device memory."""

    offset: int
    memory: Any


class Device(ABC):
    """One accelerator, through one library.

    Memory is a flat array of bytes of the library, and opaque to the callers. A subclass MUST raise
    `DeviceFullError` where an allocation fails and `DeviceLostError` where the device fails, and
    MUST be safe to use from many threads.
    """

    name: str  # "cuda:0", as torch writes it.
    title: str  # For `repr` and the log.
    library: str  # The library of its arrays: "torch", "cupy".

    def __init__(self) -> None:
        self._pid = os.getpid()
        # Makes room for so many bytes and returns whether it made any; set by the tier.
        self.make_room: Callable[[int], bool] = lambda nbytes: False

    def allocate(self, nbytes: int) -> Any:
        """Return `nbytes` of memory; values are moved off the device where that is needed.

        Raises:
            DeviceFullError: the memory is full, and no more values could leave.
        """
        self.require_own()
        return self.with_room(self._allocate, nbytes)

    def with_room(self, allocate: Callable[[int], Any], nbytes: int) -> Any:
        """Return `allocate(nbytes)`, making room and trying again as often as that helps."""
        for _ in range(RETRIES):
            try:
                return allocate(nbytes)
            except Exception as error:
                if not self.is_full(error) or not self.make_room(nbytes):
                    raise
                self.trim()
        return allocate(nbytes)

    def hook_allocator(self) -> Callable[[], None]:
        """Make room for the library's own allocations too, if it has a hook; return the undo."""
        return _nothing

    def require_own(self) -> None:
        """Raise ForkedError in a forked child, which must touch no device of its parent."""
        if os.getpid() != self._pid:
            raise ForkedError(
                f"the value is in the memory of {self.name}, which a forked child cannot touch; "
                "open the store in the child with a MemoryManager of its own, or fork before"
            )

    @abstractmethod
    def _allocate(self, nbytes: int) -> Any:
        """Return `nbytes` of memory, or raise DeviceFullError."""

    @abstractmethod
    def upload(self, target: Any, pieces: Iterable[DevicePiece]) -> None:
        """Copy buffers of the host into `target`, in ascending order of their offsets.

        When this returns, the buffers may change.
        """

    @abstractmethod
    def download(self, source: Any, pieces: Iterable[DevicePiece]) -> None:
        """Copy parts of `source` into writable buffers of the host, complete on return."""

    @abstractmethod
    def copy(self, target: Any, pieces: Iterable[DevicePiece]) -> None:
        """Copy memory of this device into `target`, in the order of the caller's own stream."""

    @abstractmethod
    def view(self, memory: Any, offset: int, nbytes: int) -> Any:
        """Return a part of `memory`, without a copy."""

    @abstractmethod
    def nbytes(self, memory: Any) -> int:
        """Return how many bytes `memory` is."""

    @abstractmethod
    def wrap(self, foreign: Any) -> Any:
        """Return the memory of an array of any library on this device as flat bytes, by DLPack."""

    @abstractmethod
    def owner(self, memory: Any) -> Any:
        """Return the object that dies when the last array over `memory` does."""

    @abstractmethod
    def record_event(self) -> Callable[[], None]:
        """Return a function that makes the calling stream wait for the work queued until now."""

    @abstractmethod
    def room(self) -> int:
        """Return the bytes that could be allocated now, the library's cache included."""

    def trim(self) -> None:
        """Give the library's cache back to the device."""

    def is_full(self, error: BaseException) -> bool:
        """Return whether `error` means that the device had no memory left."""
        return isinstance(error, DeviceFullError)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @contextmanager
    def _translated(self, nbytes: int = 0) -> Iterator[None]:
        """Raise the library's errors as errors of this package."""
        try:
            yield
        except (DeviceFullError, DeviceLostError):
            raise
        except Exception as error:  # Libraries raise RuntimeError and classes of their own.
            if self.is_full(error):
                raise DeviceFullError(
                    f"{self.name} has no memory for {format_size(nbytes)}, and no more values can "
                    "leave it; everything stored before is still there: free memory of your own, "
                    "delete or unpin keys, or make hot_memory_size smaller"
                ) from error
            raise DeviceLostError(
                f"{self.name} failed: {error}; values that were on the device only are lost, those "
                "with a copy in a lower tier can be read after demote(key, 'cold')"
            ) from error


def _nothing() -> None:
    """Undo nothing: this library has no hook."""


def layout(sizes: Iterable[int]) -> tuple[list[int], int]:
    """Return the offsets of buffers of these sizes in one allocation, and its size."""
    offsets, end = [], 0
    for size in sizes:
        offsets.append(end)
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return offsets, end
