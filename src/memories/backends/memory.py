"""A backend in plain RAM: the model that other backends are tested against.

It copies every frame, so that it returns exactly what it was given. Nothing survives `close`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from memories.backends.base import Backend, Usage
from memories.errors import ClosedError, CorruptDataError
from memories.foundation.fork_lock import new_lock
from memories.model.record import Record


class MemoryBackend(Backend):
    """Stores frames in a dictionary."""

    def __init__(self) -> None:
        self._lock = new_lock()
        self._records: dict[str, Record] = {}
        self._removed: dict[str, int] = {}
        self._frames: dict[bytes, bytes] = {}
        self._last_version = 0
        self._closed = False

    def write(self, record: Record, frame: Sequence[memoryview]) -> Record:
        """Store a copy of `frame`."""
        data = b"".join(frame)
        with self._lock:
            self._open()
            held = self._records.get(record.key)
            if held is not None and held.version > record.version:
                return held
            if self._removed.get(record.key, -1) > record.version:
                return record
            self._last_version = max(self._last_version, record.version)
            place = f"{record.version}/{record.key}".encode()
            if held is not None:
                self._frames.pop(held.place)
            self._frames[place] = data
            kept = replace(record, stored=len(data), place=place)
            self._records[record.key] = kept
            return kept

    def read(self, record: Record) -> memoryview:
        """Return the frame that `record` names."""
        self._open()
        data = self._frames.get(record.place)
        if data is None:
            raise CorruptDataError(f"{record.key!r} version {record.version} is not held here")
        return memoryview(data)

    def lookup(self, key: str) -> Record | None:
        """Return the newest record of `key`, or None."""
        self._open()
        return self._records.get(key)

    def remove(self, key: str, version: int) -> None:
        """Make `key` absent as of `version`."""
        with self._lock:
            self._open()
            self._last_version = max(self._last_version, version)
            held = self._records.get(key)
            if held is not None and held.version > version:
                return
            self._removed[key] = max(version, self._removed.get(key, 0))
            if held is not None:
                del self._records[key], self._frames[held.place]

    def scan(self, prefix: str = "", after: str = "") -> Iterator[Record]:
        """Yield records in the order of their keys' UTF-8 bytes."""
        with self._lock:
            self._open()
            found = [
                record
                for key, record in self._records.items()
                if key.startswith(prefix) and key.encode() > after.encode()
            ]
        yield from sorted(found, key=lambda record: record.key.encode())

    def usage(self) -> Usage:
        """Return what is held; live and physical bytes are the same."""
        with self._lock:
            live = sum(record.stored for record in self._records.values())
            return Usage(live, live, len(self._records))

    def last_version(self) -> int:
        """Return the highest version ever written or removed here."""
        return self._last_version

    def close(self) -> None:
        """Drop everything."""
        with self._lock:
            self._closed = True
            self._records, self._frames = {}, {}

    def _open(self) -> None:
        if self._closed:
            raise ClosedError("this backend was closed; open a new one")
