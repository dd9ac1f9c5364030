"""The contract of a backend: it stores frames by key on one medium. Policies are elsewhere.

A frame is given as a list of buffers, so that a backend writes it from the memory it lies in. What
a backend reads may be damaged or hostile: its caller must check it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

from memories.errors import CorruptDataError
from memories.model.record import Record
from memories.progress import Step

# A frame of this size or more is large: it lies in a file of its own on a local disk, and is mapped
# instead of read. What was verified is remembered for large frames only.
LARGE_BYTES = 1 << 20


class Usage(NamedTuple):
    """What a backend holds, in bytes and keys."""

    live: int  # Bytes of frames that a record names.
    physical: int  # Bytes taken on the medium, garbage and padding included.
    keys: int


class Problem(NamedTuple):
    """One thing that `check` found."""

    key: str | None  # None where it concerns no single key.
    what: str
    repaired: bool
    unchecked: bool = False  # Whether something could not be verified, rather than is damaged.
    remedy: str = ""  # What repair does about it, or did; "" if it can do nothing.


class Backend(ABC):
    """Stores frames by key on one medium.

    Every method may be called from any thread. For one key the caller serialises `write` and
    `remove`; it does not serialise them with `read`. Every failure of the medium MUST be raised as
    `StorageError` (or `UnavailableError` for a remote medium) with the foreign error as its
    cause, and MUST leave the previous version of the key readable.
    """

    # Whether a request takes so long that several should be sent at once.
    remote: ClassVar[bool] = False

    @abstractmethod
    def write(self, record: Record, frame: Sequence[memoryview]) -> Record:
        """Store `frame` as the value of `record.key`; return the record with `place` and `stored`.

        Once it returns the version survives a kill of the process. It MUST NOT hold on to the
        buffers, and a version older than the one it already holds MUST NOT replace it.
        """

    @abstractmethod
    def read(self, record: Record) -> memoryview:
        """Return the frame that `record` names, read-only.

        The bytes stay valid for as long as the caller holds them, whatever happens to the key.

        Raises:
            CorruptDataError: the medium no longer holds what the record names.
        """

    def read_private(self, record: Record) -> memoryview:
        """Return the frame as `read` does; a writable one lies in memory of the caller's own."""
        return self.read(record)

    def read_many(self, records: Sequence[Record]) -> list[memoryview]:
        """Return the frames of many records, in their order."""
        return [self.read(record) for record in records]

    def read_ranges(self, record: Record, spans: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Return the bytes of a frame from each start to each stop, in the order of `spans`.

        Raises:
            CorruptDataError: the medium holds no such bytes.
        """
        frame = self.read(record)
        if any(not 0 <= start <= stop <= len(frame) for start, stop in spans):
            raise CorruptDataError(f"the frame of {record.key!r} has only {len(frame)} bytes")
        return [frame[start:stop] for start, stop in spans]

    def ranged_length(self, record: Record) -> int | None:
        """Return the length of a frame of which `read_ranges` reads parts in less time than all.

        None if `read` takes no longer: the frame is mapped, for example.
        """
        return record.stored if self.remote else None

    def restore(self, records: Sequence[Record], *, timeout: float) -> None:
        """Restore frames that the medium has archived and cannot read at once, if there are any.

        Raises:
            ArchivedError: they were not all there after `timeout` seconds.
        """
        del records, timeout

    @abstractmethod
    def lookup(self, key: str) -> Record | None:
        """Return the newest record of `key`, or None if the key is absent."""

    @abstractmethod
    def remove(self, key: str, version: int) -> None:
        """Make `key` absent as of `version`, durably. Removing an absent key is allowed.

        `version` is a number that no later value has.
        """

    @abstractmethod
    def scan(self, prefix: str = "", after: str = "") -> Iterator[Record]:
        """Yield the records whose keys start with `prefix` and come after `after`, in key order.

        Keys are ordered by their UTF-8 bytes. Changes made meanwhile may or may not be seen.
        """

    @abstractmethod
    def usage(self) -> Usage:
        """Return what is held; cheap enough for every store."""

    @abstractmethod
    def last_version(self) -> int:
        """Return the highest version ever written or removed here, 0 when there is none."""

    def sync(self) -> None:
        """Return once everything written survives a power cut, if the medium can lose power."""

    def check(
        self, *, repair: bool = False, dry_run: bool = False, progress: Step | None = None
    ) -> list[Problem]:
        """Verify every frame and the index; with `repair`, remove what is damaged, mend the rest.

        What is missing or unreadable MUST be left as it is: only what was read can be known to be
        damaged. With `dry_run` nothing is changed. `progress` is called with the number of live
        bytes verified since its last call.
        """
        del repair, dry_run, progress
        return []

    @abstractmethod
    def close(self) -> None:
        """Release the medium. Idempotent."""
