"""From a record to its frame: staged on this machine, or by ranged requests from the bucket.

Only the length of a frame is checked here; its decoder verifies the checksums. If garbage
collection has moved a frame since its record was read, the map has the new location.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from memories.backends.bucket.lease import LOCK_NAME
from memories.backends.bucket.location import ObjectLocation
from memories.backends.bucket.objectstore import Absent
from memories.backends.bucket.options import Progress
from memories.backends.bucket.parallel_download import RANGE_BYTES
from memories.backends.bucket.rebuild import BucketParts
from memories.backends.bucket.staged_reader import read_staged
from memories.backends.bucket.staging import StagedPacks
from memories.errors import ArchivedError, CorruptDataError, StoreLockedError, UnavailableError
from memories.foundation.units import format_size
from memories.model.record import Record

_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_GAP_BYTES = 64 * 1024  # Frames this close together come by one request.


class Reader:
    """Reads frames. Every method may be called from any thread."""

    def __init__(
        self,
        bucket: BucketParts,
        packs: StagedPacks,
        writers_directory: Path | None,
        progress: Progress | None,
    ) -> None:
        self._store = bucket.store
        self._downloads = bucket.downloads
        self._index = bucket.index
        self._packs = packs
        self._writers_directory = writers_directory
        self._progress = progress

    def read(self, record: Record) -> memoryview:
        """Return the whole frame of a record."""
        return self.read_range(record, 0, ObjectLocation.decode(record.place).length)

    def read_range(self, record: Record, offset: int, length: int) -> memoryview:
        """Return a part of the frame of a record."""
        place = ObjectLocation.decode(record.place)
        if offset < 0 or length < 0 or offset + length > place.length:
            raise CorruptDataError(
                f"key {record.key!r} has {place.length} bytes in the archive; bytes {offset} to "
                f"{offset + length} were asked for"
            )
        staged = self.staged(place)
        if staged is not None:
            return staged[offset : offset + length]
        try:
            return self._fetch(record.key, place, offset, length)
        except Absent as error:
            return self._read_elsewhere(record, place, offset, length, error)

    def read_many(self, records: Sequence[Record]) -> list[memoryview]:
        """Return the frames of records, in their order, by as few requests as make sense."""

        def read(group: list[int]) -> list[memoryview]:
            members = [records[at] for at in group]
            with naming(members[0].key, sum(one.stored for one in members), "read back"):
                return self._read_group(members)

        places = [ObjectLocation.decode(record.place) for record in records]
        spans = [(place.offset, place.offset + place.length, place.token) for place in places]
        return self._gather(read, _neighbours(spans))

    def read_ranges(self, record: Record, spans: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Return stretches of a frame, in their order; those that lie close come together."""

        def read(group: list[int]) -> list[memoryview]:
            begin, end = spans[group[0]][0], max(spans[at][1] for at in group)
            data = self.read_range(record, begin, end - begin)
            return [data[spans[at][0] - begin : spans[at][1] - begin] for at in group]

        return self._gather(read, _neighbours([(*span, b"") for span in spans]))

    def restore(self, records: Sequence[Record], timeout: float, days: int) -> None:
        """Ask for the restore of what cannot be read, and look again until all of it can."""
        begun, pause = time.monotonic(), _FIRST_PAUSE_SECONDS
        asked: set[str] = set()
        waiting = list(records)
        while waiting:
            refused = []
            for record, error in self._downloads.map(self._refusal, waiting):
                if error is None:
                    continue
                refused.append((record, error))
                name = ObjectLocation.decode(record.place).name
                if name not in asked:
                    self._store.restore(name, days)
                    asked.add(name)
            waiting = [record for record, _ in refused]
            if refused and time.monotonic() + pause - begun > timeout:
                raise refused[0][1]
            if refused:
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _refusal(self, record: Record) -> tuple[Record, ArchivedError | None]:
        """Read a byte; return the error of the archive class, if it is still there."""
        try:
            self.read_range(record, 0, min(1, ObjectLocation.decode(record.place).length))
        except ArchivedError as error:
            return record, error
        return record, None

    def _gather(
        self, read: Callable[[list[int]], list[memoryview]], groups: list[list[int]]
    ) -> list[memoryview]:
        """Return what `read` returns for groups of positions, by position."""
        found: dict[int, memoryview] = {}
        for group, parts in self._downloads.map(lambda group: (group, read(group)), groups):
            found.update(zip(group, parts, strict=True))
        return [found[at] for at in range(len(found))]

    def _read_group(self, records: list[Record]) -> list[memoryview]:
        if len(records) == 1:
            return [self.read(records[0])]
        places = [ObjectLocation.decode(record.place) for record in records]
        begin, last = places[0].offset, places[-1]
        try:
            data = self._downloads.fetch(last.name, begin, last.offset + last.length - begin)
        except Absent:
            return [self.read(record) for record in records]
        parts = [data[p.offset - begin : p.offset - begin + p.length] for p in places]
        return [
            part if len(part) == place.length else self.read(record)
            for part, place, record in zip(parts, places, records, strict=True)
        ]

    def staged(self, place: ObjectLocation) -> memoryview | None:
        """Return a frame that lies on this machine only, as yet, or None."""
        if self._writers_directory is not None:
            return read_staged(self._writers_directory, place)
        return self._packs.read(place)

    def _read_elsewhere(
        self, record: Record, place: ObjectLocation, offset: int, length: int, error: Absent
    ) -> memoryview:
        known = self._index.find(record.key)
        if known is not None and known.version == record.version and known.place != record.place:
            return self.read_range(known, offset, length)
        if self._is_empty():
            raise UnavailableError(
                f"the archive {self._store.url} is empty: is it mounted, and the URL the right one?"
            ) from error.__cause__
        raise CorruptDataError(
            f"key {record.key!r} is in the archive object {place.name} of {self._store.url}, and "
            "the store says that there is none: it was deleted by another program"
        ) from error.__cause__

    def _is_empty(self) -> bool:
        """Return whether the whole archive is missing, and not only a single object."""
        try:
            self._store.get(LOCK_NAME)
        except Absent:
            return not any(True for _ in self._store.list("objects/"))
        return False

    def _fetch(self, key: str, place: ObjectLocation, offset: int, length: int) -> memoryview:
        progress = self._progress
        report = None if progress is None else lambda done, total: progress(key, done, total)
        data = self._downloads.fetch(place.name, place.offset + offset, length, report)
        if len(data) != length:
            raise CorruptDataError(
                f"key {key!r} is in the archive object {place.name} of {self._store.url}, which "
                f"is {length - len(data)} bytes too short"
            )
        return data


@contextmanager
def naming(key: str, length: int, done: str) -> Iterator[None]:
    """Name a key, its size and what was not `done` with it in the errors of the block."""
    try:
        yield
    except StoreLockedError:
        raise
    except OSError as error:
        raise type(error)(
            f"key {key!r} ({format_size(length)}) was not {done}: {error}"
        ) from error.__cause__


def _neighbours(spans: Sequence[tuple[int, int, bytes]]) -> list[list[int]]:
    """Return the positions of spans (start, stop, object) in groups for one request each."""
    groups: list[list[int]] = []
    begin, end, token = 0, 0, None
    for at in sorted(range(len(spans)), key=lambda at: (spans[at][2], spans[at])):
        start, stop, name = spans[at]
        if name == token and start - end <= _GAP_BYTES and stop - begin <= RANGE_BYTES:
            groups[-1].append(at)
            end = max(end, stop)
        else:
            groups.append([at])
            begin, end, token = start, stop, name
    return groups
