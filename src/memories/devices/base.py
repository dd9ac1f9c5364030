"""What a device is: memory of its own, and five ways to move bytes into, within and out of it.

Not an allocator: the library behind it has one. The one idea: whoever is refused memory asks the
tier above to make room, once, here, so that a store, a read and a caller's own work are relieved
alike.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from memories.errors import ForkedError, StorageError, TierFullError
from memories.foundation.units import format_size

ALIGNMENT = 256  # What a CUDA allocation starts at, and so what any dtype may be laid over.
RELIEFS = 4  # How often room is made for one allocation before it fails.


class DeviceFullError(TierFullError):
    """The device has no memory left for what was asked of it, and nothing more could leave it."""


class DeviceLostError(StorageError):
    """The device failed. What lies only there is lost; copies in lower tiers are untouched."""


class Piece(NamedTuple):
    """A stretch of bytes to be put at an offset of device memory, from the host or a device."""

    offset: int
    memory: Any


class Device(ABC):
    """One accelerator, through one library.

    Memory is whatever the library lays over flat bytes: it is passed around, never looked into. A
    subclass MUST raise `DeviceFullError` where memory is refused and `DeviceLostError` where the
    device fails, and MUST be safe to use from many threads.
    """

    name: str  # "cuda:0", as torch writes it.
    title: str  # In words, for `repr` and the log.
    library: str  # Whose arrays lie over its memory: "torch", "cupy".

    def __init__(self) -> None:
        self._pid = os.getpid()
        # Makes room for so many bytes and returns whether it made any; set by the tier.
        self.relieve: Callable[[int], bool] = lambda nbytes: False

    def allocate(self, nbytes: int) -> Any:
        """Return `nbytes` of memory; others are moved out of the way where that helps.

        Raises:
            DeviceFullError: there is none, and nothing more could leave.
        """
        self.require_own()
        return self.relieved(self._allocate, nbytes)

    def relieved(self, allocate: Callable[[int], Any], nbytes: int) -> Any:
        """Return `allocate(nbytes)`, with others moved out of the way as often as that helps."""
        for _ in range(RELIEFS):
            try:
                return allocate(nbytes)
            except Exception as error:
                if not self.is_full(error) or not self.relieve(nbytes):
                    raise
                self.trim()
        return allocate(nbytes)

    def hook(self) -> Callable[[], None]:
        """Relieve the library's own allocations too, where it can ask; return the undoing."""
        return _nothing

    def require_own(self) -> None:
        """Raise ForkedError in a forked child, which must touch no device of its parent."""
        if os.getpid() != self._pid:
            raise ForkedError(
                f"the value lies in the memory of {self.name}, which a forked child cannot touch; "
                "open the store in the child with a MemoryManager of its own, or fork before"
            )

    @abstractmethod
    def _allocate(self, nbytes: int) -> Any:
        """Return `nbytes` of memory, or raise DeviceFullError."""

    @abstractmethod
    def upload(self, target: Any, pieces: Iterable[Piece]) -> None:
        """Copy buffers of the host into `target`, in ascending order of their offsets.

        When this returns, the buffers may change.
        """

    @abstractmethod
    def download(self, source: Any, pieces: Iterable[Piece]) -> None:
        """Copy stretches of `source` into writable buffers of the host, which then are complete."""

    @abstractmethod
    def copy(self, target: Any, pieces: Iterable[Piece]) -> None:
        """Copy memory of this device into `target`, in the order of the caller's own stream."""

    @abstractmethod
    def part(self, memory: Any, offset: int, nbytes: int) -> Any:
        """Return a stretch of `memory`, without a copy."""

    @abstractmethod
    def nbytes(self, memory: Any) -> int:
        """Return how many bytes `memory` is."""

    @abstractmethod
    def adopt(self, foreign: Any) -> Any:
        """Return an array of any library that lies on this device as flat bytes, by DLPack."""

    @abstractmethod
    def owner(self, memory: Any) -> Any:
        """Return the object that dies when the last array over `memory` does."""

    @abstractmethod
    def mark(self) -> Callable[[], None]:
        """Return what makes the caller's stream wait for all that was asked of it until now."""

    @abstractmethod
    def room(self) -> int:
        """Return the bytes that could be allocated now, those that the library keeps included."""

    def trim(self) -> None:
        """Give what the library keeps for later back to the device."""

    def is_full(self, error: BaseException) -> bool:
        """Return whether `error`, raised anywhere, says that the device had no memory left."""
        return isinstance(error, DeviceFullError)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @contextmanager
    def _translated(self, nbytes: int = 0) -> Iterator[None]:
        """Raise the library's faults as ours."""
        try:
            yield
        except (DeviceFullError, DeviceLostError):
            raise
        except Exception as error:  # Libraries raise RuntimeError and classes of their own.
            if self.is_full(error):
                raise DeviceFullError(
                    f"{self.name} has no memory for {format_size(nbytes)}, and nothing more may "
                    "leave it. Everything stored before is still there. Free memory of your own, "
                    "delete or unpin keys, or make hot_memory_size smaller"
                ) from error
            raise DeviceLostError(
                f"{self.name} failed: {error}. Copies in lower tiers are untouched: demote(key, "
                "'cold') serves those that have one; values that lay on the device only are lost"
            ) from error


def _nothing() -> None:
    """Undo nothing: most libraries ask nobody when they run out."""


def laid_out(sizes: Iterable[int]) -> tuple[list[int], int]:
    """Return where stretches of these sizes lie in one allocation, and how long that is."""
    offsets, end = [], 0
    for size in sizes:
        offsets.append(end)
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return offsets, end
