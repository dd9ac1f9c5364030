"""The interface of an object store: named immutable objects, and one conditional write.

It has no rename and no append, and correctness never depends on a listing. All above (names, packs,
retries, the writer's lease) is written once, against this interface.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview
BeforeSend: TypeAlias = Callable[[int], None]


class Stat(NamedTuple):
    """One object of a listing."""

    name: str
    size: int
    modified: float  # Seconds of the store's wall clock.


class Absent(Exception):
    """The store answered that it holds no object of that name."""


class Conflict(Exception):
    """A conditional write found another state than the one it was made for."""


class Transient(Exception):
    """The store did not answer, or answered that it could not just now: worth another try."""


class ObjectStore(ABC):
    """Keeps named objects.

    Names are relative to the store's prefix and made of [a-z0-9/-] only. Every method may be called
    from any thread. A failure MUST be raised as one of: `Absent`, `Conflict`, `Transient` (all
    internal, none leaves this package), `ArchivedError`, `UnavailableError`, `StorageError`; their
    messages and causes MUST NOT hold a credential.
    """

    url: str  # What messages call the store; without credentials.

    @abstractmethod
    def put(self, name: str, buffers: Sequence[Buffer], sending: BeforeSend | None = None) -> None:
        """Keep `buffers`, one after the other, as `name`: all of it or nothing.

        `sending` is called with a number of bytes before that many more leave; it may block.
        """

    @abstractmethod
    def put_if(self, name: str, data: bytes, tag: str | None) -> str:
        """Write a small object if its state is still `tag` (None: absent); return its new tag.

        Raises:
            Conflict: the state is another one.
        """

    @abstractmethod
    def get(self, name: str) -> tuple[bytes, str]:
        """Return a small object whole, and the tag of its state."""

    @abstractmethod
    def get_range(self, name: str, offset: int, length: int) -> Buffer:
        """Return `length` bytes from `offset` on; fewer where the object ends before that."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove an object. Removing an absent one is allowed."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[Stat]:
        """Yield, in any order, the objects whose names start with `prefix`, such as `objects/`."""

    def honours_conditions(self) -> bool:
        """Return whether `put_if` is reliable; some gateways ignore its condition."""
        return True

    def forget_probe(self) -> None:
        """Delete what `honours_conditions` may have written."""

    def abandoned_uploads(self, names: Collection[str] | None) -> Sequence[str] | None:
        """Abort what was begun to be uploaded as `names`, or (None) as any object, and never ended.

        Returns the names of what was aborted; None where that is unknown.
        """
        del names
        return []

    def restore(self, name: str, days: int) -> None:
        """Ask for a readable copy of an object that lies in an archive class, if there are such."""

    def close(self) -> None:
        """Release what the store holds. Idempotent."""
