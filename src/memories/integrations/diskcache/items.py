"""The items of a cache: values with a place in an order, a tag and a time to live.

They lie in a store that several processes write. One lock, of all threads and processes, is held
while something changes, so that a change may look first and decide then.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memories.core.value_reader import MISSING
from memories.errors import BusyError, InvalidOptionError, KeyNotFoundError
from memories.foundation.clock import SystemClock
from memories.foundation.fork_lock import new_lock
from memories.sharing import SharedMemoryManager

CLOCK = SystemClock()
LOCK_NAME = "diskcache.lock"
OWN = "="  # What is no item: the state of the queues.
_PAUSE = 0.002
_ABSENT = object()  # `MISSING` is no default: without one a manager raises.


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of an item besides its value.

    Attributes:
        number: Its place in the order of insertion.
        tag: Its tag, or None.
        kept: Its key, where the name does not tell it.
        expires_at: When it expires, in seconds since the epoch; None for never.
    """

    number: int
    tag: Any
    kept: Any
    expires_at: float | None


class Items:
    """Reads and changes the items of one directory.

    Args:
        directory: Where the store is; made if it is absent.
        timeout: How long a change waits for another one, in seconds.
        options: Options of the store, for the process that opens it first.
    """

    def __init__(self, directory: Path, timeout: float, options: Mapping[str, Any]) -> None:
        if (directory / "cache.db").exists():
            raise InvalidOptionError(
                f"{directory} is a directory of diskcache: take another one, and bring the items "
                f"over by `memories import diskcache {directory} TARGET`"
            )
        self._directory = directory
        self._timeout = timeout
        self._options = dict(options)
        self._lock = new_lock(outermost=True)
        self._depth = 0
        self._descriptor = (0, -1)  # Of the file of the lock, and the process that opened it.
        self._opened: SharedMemoryManager | None = None
        self._latest = 0
        self._undo: dict[str, tuple[Any, Row | None] | None] | None = None

    @property
    def manager(self) -> SharedMemoryManager:
        """The store; opened again after `close`."""
        opened = self._opened
        if opened is None:
            with self._lock:
                if self._opened is None:
                    self._opened = SharedMemoryManager(self._directory, **self._options)
                opened = self._opened
        return opened

    def close(self) -> None:
        """Close the store and the lock. Idempotent."""
        with self._lock:
            opened, self._opened = self._opened, None
            (owner, descriptor), self._descriptor = self._descriptor, (0, -1)
            if owner == os.getpid():
                os.close(descriptor)
        if opened is not None:
            opened.cleanup()

    @contextmanager
    def locked(self, patient: bool = False) -> Iterator[None]:
        """Hold the lock; wait for it however long it takes if `patient`.

        Raises:
            BusyError: another thread or process holds it for too long.
        """
        if not self._lock.acquire(timeout=-1 if patient else self._timeout):
            raise self._timed_out("thread")
        try:
            if not self._depth:
                self._lock_file(patient)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if not self._depth and self._descriptor[1] >= 0:
                    fcntl.flock(self._descriptor[1], fcntl.LOCK_UN)
        finally:
            self._lock.release()

    @contextmanager
    def transaction(self, patient: bool = False) -> Iterator[None]:
        """Hold the lock; an exception takes back what was changed meanwhile."""
        with self.locked(patient):
            if self._undo is not None:  # The outermost decides.
                yield
                return
            self._undo = {}
            try:
                yield
            except BaseException:
                before, self._undo = self._undo, None
                while True:
                    try:
                        self._take_back(before)
                        break
                    except KeyboardInterrupt:  # A further one: half of it may be taken back.
                        continue
                raise
            finally:
                self._undo = None

    def read(self, name: str) -> Any:
        """Return the value of an item, or `MISSING`."""
        value = self.manager.retrieve(name, _ABSENT)
        return MISSING if value is _ABSENT else value

    def row(self, name: str) -> Row | None:
        """Return what is known of an item, or None."""
        try:
            info = self.manager.info(name)
        except KeyNotFoundError:
            return None
        return _row_of(info.metadata, info.expires_at)

    def write(self, name: str, value: Any, row: Row) -> None:
        """Store an item. The caller holds the lock."""
        self._remember(name)
        ttl = None if row.expires_at is None else row.expires_at - CLOCK.wall()
        if ttl is not None and ttl <= 0:
            self.manager.delete_many([name])
            return
        metadata = {"row": row.number}
        if row.tag is not None:
            metadata["tag"] = row.tag
        if row.kept is not None:
            metadata["key"] = row.kept
        self.manager.store(name, value, ttl=ttl, metadata=metadata)

    def set_expiry(self, name: str, expires_at: float | None) -> None:
        """Change when an item expires. The caller holds the lock."""
        self._remember(name)
        if expires_at is None:
            self.manager.set_terms(name, ttl=None)
        elif (ttl := expires_at - CLOCK.wall()) > 0:
            self.manager.set_terms(name, ttl=ttl)
        else:
            self.manager.delete(name)

    def remove(self, names: list[str]) -> int:
        """Remove items, and return how many there were. The caller holds the lock."""
        for name in names:
            self._remember(name)
        return self.manager.delete_many(names)

    def next_number(self) -> int:
        """Return a place in the order behind all others. The caller holds the lock."""
        self._latest = max(int(CLOCK.wall() * 1e9), self._latest + 1)
        return self._latest

    def names(self) -> list[str]:
        """Return the names of all items, in order."""
        return [name for name in self.manager.scan() if name != OWN]

    def listed(self) -> list[tuple[str, Row]]:
        """Return the names of all items and what is known of them, in the order of insertion."""
        found = self.manager._call("described")
        rows = [(name, _row_of(metadata, ends)) for name, metadata, ends in found]
        return sorted(rows, key=lambda item: (item[1].number, item[0]))

    def count(self) -> int:
        """Return the number of items."""
        return len(self.manager) - self.manager.exists(OWN)

    def own(self) -> dict[str, Any]:
        """Return the state of the queues."""
        found: dict[str, Any] = self.manager.retrieve(OWN, {})
        return found

    def set_own(self, state: dict[str, Any]) -> None:
        """Keep the state of the queues. The caller holds the lock."""
        if self._undo is not None and OWN not in self._undo:
            self._undo[OWN] = (self.own(), None)
        if state:
            self.manager.store(OWN, state)
        else:
            self.manager.delete_many([OWN])

    def _remember(self, name: str) -> None:
        if self._undo is not None and name not in self._undo:
            row = self.row(name)
            self._undo[name] = None if row is None else (self.read(name), row)

    def _take_back(self, before: Mapping[str, tuple[Any, Row | None] | None]) -> None:
        self.manager.delete_many([name for name, item in before.items() if item is None])
        for name, item in before.items():
            if item is not None:
                value, row = item
                if row is None:
                    self.set_own(value)
                else:
                    self.write(name, value, row)

    def _lock_file(self, patient: bool) -> None:
        owner, descriptor = self._descriptor
        if owner != os.getpid():  # A child must not share the lock of its parent.
            if owner:
                os.close(descriptor)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._directory / LOCK_NAME, flags, 0o600)
            self._descriptor = (os.getpid(), descriptor)
        give_up = CLOCK.monotonic() + self._timeout
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not patient and CLOCK.monotonic() > give_up:
                    raise self._timed_out("process") from None
                time.sleep(_PAUSE)
            else:
                return

    def _timed_out(self, who: str) -> BusyError:
        return BusyError(
            f"another {who} has been changing {self._directory} for {self._timeout} s: end its "
            "transaction, or wait longer by timeout="
        )


def _row_of(metadata: Mapping[str, Any], expires_at: float | None) -> Row:
    return Row(metadata.get("row", 0), metadata.get("tag"), metadata.get("key"), expires_at)
