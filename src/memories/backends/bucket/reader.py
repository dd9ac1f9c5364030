"""From a record to its frame: staged here, or by ranged requests from the bucket.

Not a decoder: whoever decodes a frame checks its checksums; here only its length is checked.
A place is a hint: when reclamation has moved a frame since, the map knows the new one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from memories.backends.bucket.ledger import Ledger
from memories.backends.bucket.objectstore import Absent, ObjectStore
from memories.backends.bucket.peek import peek_staged
from memories.backends.bucket.place import Place
from memories.backends.bucket.shipper import Shipper
from memories.backends.bucket.transfer import RANGE_BYTES, Transfer
from memories.entry import Record
from memories.errors import ArchivedError, CorruptDataError

Progress = Callable[[str, int, int], None]  # The key, bytes done, bytes in all.

_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_GAP_BYTES = 64 * 1024  # Frames this close together come by one request.


class Reader:
    """Reads frames. Every method may be called from any thread."""

    def __init__(
        self,
        store: ObjectStore,
        transfer: Transfer,
        ledger: Ledger,
        shipper: Shipper,
        writers_directory: Path | None,
        progress: Progress | None,
    ) -> None:
        self._store = store
        self._transfer = transfer
        self._ledger = ledger
        self._shipper = shipper
        self._writers_directory = writers_directory
        self._progress = progress

    def read(self, record: Record) -> memoryview:
        """Return the whole frame of a record."""
        return self.read_range(record, 0, Place.decode(record.place).length)

    def read_range(self, record: Record, offset: int, length: int) -> memoryview:
        """Return a part of the frame of a record."""
        place = Place.decode(record.place)
        if offset < 0 or length < 0 or offset + length > place.length:
            raise CorruptDataError(
                f"Key {record.key!r} has {place.length} bytes in the archive; bytes {offset} to "
                f"{offset + length} were asked for."
            )
        staged = self._staged(place)
        if staged is not None:
            return staged[offset : offset + length]
        try:
            return self._fetch(record.key, place, offset, length)
        except Absent as error:
            return self._read_elsewhere(record, place, offset, length, error)

    def read_many(self, records: Sequence[Record]) -> list[memoryview]:
        """Return the frames of records, in their order, by as few requests as make sense."""
        frames: list[memoryview | None] = [None] * len(records)
        for group, parts in self._transfer.map(
            lambda group: (group, self._read_group([records[at] for at in group])),
            _neighbours([Place.decode(record.place) for record in records]),
        ):
            for at, frame in zip(group, parts, strict=True):
                frames[at] = frame
        return [frame for frame in frames if frame is not None]

    def restore(self, record: Record, timeout: float, days: int) -> None:
        """Ask for a restore and try to read a byte of the frame until it comes."""
        place = Place.decode(record.place)
        begun, pause = time.monotonic(), _FIRST_PAUSE_SECONDS
        requested = False
        while True:
            try:
                self.read_range(record, 0, min(1, place.length))
                return
            except ArchivedError:
                if not requested:
                    self._store.restore(place.name, days)
                    requested = True
                if time.monotonic() + pause - begun > timeout:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _read_group(self, records: list[Record]) -> list[memoryview]:
        if len(records) == 1:
            return [self.read(records[0])]
        places = [Place.decode(record.place) for record in records]
        begin, last = places[0].offset, places[-1]
        try:
            data = self._transfer.fetch(last.name, begin, last.offset + last.length - begin)
        except Absent:
            return [self.read(record) for record in records]
        parts = [data[p.offset - begin : p.offset - begin + p.length] for p in places]
        return [
            part if len(part) == place.length else self.read(record)
            for part, place, record in zip(parts, places, records, strict=True)
        ]

    def _staged(self, place: Place) -> memoryview | None:
        if self._writers_directory is not None:
            return peek_staged(self._writers_directory, place)
        return self._shipper.staged(place)

    def _read_elsewhere(
        self, record: Record, place: Place, offset: int, length: int, error: Absent
    ) -> memoryview:
        known = self._ledger.find(record.key)
        if known is not None and known.version == record.version and known.place != record.place:
            return self.read_range(known, offset, length)
        raise CorruptDataError(
            f"Key {record.key!r} lies in the archive object {place.name} of {self._store.url}, and "
            "the store says that there is none. It was deleted by someone else."
        ) from error.__cause__

    def _fetch(self, key: str, place: Place, offset: int, length: int) -> memoryview:
        progress = self._progress
        report = None if progress is None else lambda done, total: progress(key, done, total)
        data = self._transfer.fetch(place.name, place.offset + offset, length, report)
        if len(data) != length:
            raise CorruptDataError(
                f"Key {key!r} lies in the archive object {place.name} of {self._store.url}, which "
                f"is {length - len(data)} bytes too short."
            )
        return data


def _neighbours(places: Sequence[Place]) -> list[list[int]]:
    """Return the positions of places in groups that one request each can serve."""
    groups: list[list[int]] = []
    end, begin = 0, 0
    for at in sorted(range(len(places)), key=lambda at: places[at]):
        place = places[at]
        last = places[groups[-1][-1]] if groups else None
        stop = place.offset + place.length
        if (
            last is not None
            and last.token == place.token
            and place.offset - end <= _GAP_BYTES
            and stop - begin <= RANGE_BYTES
        ):
            groups[-1].append(at)
            end = max(end, stop)
        else:
            groups.append([at])
            begin, end = place.offset, stop
    return groups
