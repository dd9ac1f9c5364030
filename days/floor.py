"""The least program that keeps a store's promises: what no store that keeps them can go below.

Each value has a checksum that every read verifies. A version is appended to a log as a whole, so it
replaces the earlier one at once or not at all; a torn end of a log is not read. What was written
survives a kill, and is synced within a second. What is held in RAM has a bound. Nothing else is
here: no policy but LRU, no compression, no terms, no events, no counters, and an index that takes
RAM for each key. A bar that this program misses is beyond reach of a program that does more.
"""

from __future__ import annotations

import os
import struct
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

_HEAD = struct.Struct("<QII")  # The checksum; the bytes of the key and of the value.
_WINDOW = 8 << 20
SYNC_SECONDS = 1.0


class _Place(NamedTuple):
    """Where a value lies, and its checksum."""

    file: int
    offset: int
    length: int
    checksum: int


class Floor:
    """Values by key. Each process appends to a log of its own, and reads those of the others."""

    def __init__(self, folder: Path, room: int = 0) -> None:
        """Hold `room` bytes in RAM at most."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._room = room
        self._index: dict[str, _Place] = {}
        self._logs: dict[str, tuple[int, int]] = {}  # By name: a descriptor, and what was read.
        self._held: OrderedDict[str, Any] = OrderedDict()
        self._unwritten: set[str] = set()
        self._used = 0
        self._own = ""  # The name of the log that this process appends to.
        self.refresh()
        self._log, self._end = self._new_log()
        self._synced = self._end
        self._ended = threading.Event()
        self._syncing = threading.Thread(target=self._sync_now_and_then, daemon=True)
        self._syncing.start()

    def get(self, key: str) -> Any:
        """Return the bytes of a value; None if there is none."""
        found = self._held.get(key)
        if found is not None:
            self._held.move_to_end(key)
            return found
        place = self._index.get(key)
        if place is None:
            return None
        body = os.pread(place.file, place.length, place.offset)
        if xxhash.xxh3_64_intdigest(body, len(key)) != place.checksum:
            raise ValueError(f"{key!r} is damaged")
        self._hold(key, body)
        return body

    def hold(self, key: str, value: Any, *, write: bool = True) -> None:
        """Keep a value in RAM; when it leaves, it is written or dropped."""
        if write:
            self._unwritten.add(key)
        self._hold(key, value)

    def put(self, values: Mapping[str, Any]) -> None:
        """Write values by one append."""
        parts: list[Any] = []
        end = self._end
        for key, value in values.items():
            body = memoryview(value).cast("B")
            checksum, name = xxhash.xxh3_64_intdigest(body, len(key)), key.encode()
            parts += (_HEAD.pack(checksum, len(name), len(body)), name, body)
            start = end + _HEAD.size + len(name)
            end = start + len(body)
            self._index[key] = _Place(self._log, start, len(body), checksum)
            if (old := self._held.pop(key, None)) is not None:
                self._used -= memoryview(old).nbytes
        whole = parts if len(parts) <= os.sysconf("SC_IOV_MAX") else [b"".join(parts)]
        if os.writev(self._log, whole) != end - self._end:
            raise OSError("the disk is full")
        self._end = end

    def refresh(self) -> None:
        """Read what other processes have appended since."""
        for name in sorted(os.listdir(self._folder)):  # noqa: PTH208 - names are enough
            if name == self._own:
                continue
            if name not in self._logs:
                self._logs[name] = os.open(self._folder / name, os.O_RDONLY), 0
            file, end = self._logs[name]
            self._logs[name] = file, self._read_log(file, end, os.fstat(file).st_size)

    def sync(self) -> None:
        """Let a power cut lose nothing of what was written until now."""
        end = self._end
        if end > self._synced:
            os.fdatasync(self._log)
            self._synced = end

    def close(self) -> None:
        """Write what is held only, and sync."""
        self.put({key: self._held[key] for key in self._unwritten})
        self._ended.set()
        self._syncing.join()
        for file, _ in self._logs.values():
            os.close(file)
        os.close(self._log)

    def _hold(self, key: str, value: Any) -> None:
        if (before := self._held.pop(key, None)) is not None:
            self._used -= memoryview(before).nbytes
        self._held[key] = value
        self._used += memoryview(value).nbytes
        leaving: dict[str, Any] = {}
        while self._used > self._room:
            old, body = self._held.popitem(last=False)
            self._used -= memoryview(body).nbytes
            if old in self._unwritten:
                self._unwritten.remove(old)
                leaving[old] = body
        if leaving:
            self.put(leaving)

    def _read_log(self, file: int, end: int, size: int) -> int:
        """Enter the records between `end` and `size`; return where the next one will begin."""
        while end < size:
            window, at = os.pread(file, _WINDOW, end), 0
            while at + _HEAD.size <= len(window):
                checksum, key_bytes, length = _HEAD.unpack_from(window, at)
                start = at + _HEAD.size + key_bytes
                if start > len(window) or end + start + length > size:
                    break
                key = window[at + _HEAD.size : start].decode()
                self._index[key] = _Place(file, end + start, length, checksum)
                at = start + length
            if not at:
                break  # A torn end, or one that is being written.
            end += at
        return end

    def _new_log(self) -> tuple[int, int]:
        while True:
            name = f"{len(os.listdir(self._folder)):06}"  # noqa: PTH208 - their number is enough
            try:
                log = os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                continue  # Another process was first.
            self._own = name
            return log, 0

    def _sync_now_and_then(self) -> None:
        ended = False
        while not ended:
            ended = self._ended.wait(SYNC_SECONDS)
            self.sync()
