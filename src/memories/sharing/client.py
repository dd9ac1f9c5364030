"""Asks the process that has the store open, and reads for itself what is on the disk."""

from __future__ import annotations

import builtins
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from memories import errors
from memories.backends.disk import DiskBackend
from memories.core.manager import MemoryManager
from memories.core.value_reader import MISSING
from memories.errors import CorruptDataError, KeyNotFoundError, MemoriesError, StorageError
from memories.foundation.fork_lock import new_lock
from memories.sharing.change_count import ChangeCount
from memories.sharing.messages import Channel, RetiredError
from memories.sharing.server import same_user, socket_path

CONNECT_SECONDS = 5.0
_LOCAL = frozenset({"retrieve", "exists"})


class Client:
    """Connections to the writer, one for each call in progress.

    Args:
        reader: A manager that only reads the store; its keys sign and verify.
        directory: The directory of the store.
        seconds: The longest time for one answer.

    Raises:
        OSError: no process answers.
    """

    def __init__(self, reader: MemoryManager, directory: Path, seconds: float) -> None:
        self._reader = reader
        self._directory = directory
        self._seconds = seconds
        self.trust = reader._hierarchy.trust
        self._changes = ChangeCount(directory, writes=False)
        self._disk = cast(DiskBackend, reader._services.backends[0])
        self._seen = -1  # The number of changes that the reader has seen.
        self._lock = new_lock()
        self._idle: list[Channel] = [self._connect()]
        self._closed = False

    def call(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return what the call returns in the other process, or raise what it raises.

        Raises:
            RetiredError: the writer ended before it looked at the call.
            LostError: it ended, or takes too long; the call may be done or not.
        """
        if name in _LOCAL:
            found = self._read(name, args, kwargs)
            if found is not MISSING:
                return found
        channel = self._take()
        usable = False
        try:
            try:
                channel.send(name, args, kwargs)
            except MemoriesError:
                usable = True  # The value cannot be sent, and nothing was.
                raise
            outcome, content, _ = channel.receive()
            usable = True
        finally:
            self._give_back(channel, usable)
        if outcome == "done":
            return content[0]
        raise _error(*content)

    def _read(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return what is on the disk; `MISSING` leaves the answer to the writer.

        Every change is on the disk, and a key that was removed is not. What is missing here may be
        a cached result that is only in the RAM of the writer.
        """
        changes = self._changes.now
        if changes != self._seen:
            self._disk.refresh()
            self._seen = changes
        try:
            if name == "exists":
                return True if self._reader.exists(*args) else MISSING
            return self._reader.retrieve(*args, **kwargs)
        except (KeyNotFoundError, StorageError, CorruptDataError):
            return MISSING  # Absent, or moved meanwhile: the writer knows.

    def close(self) -> None:
        """Close the connections and the reader. Idempotent."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for channel in idle:
            channel.close()
        self._changes.close()
        self._reader.cleanup()

    def _take(self) -> Channel:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        try:
            return self._connect()
        except OSError as error:
            raise RetiredError from error

    def _give_back(self, channel: Channel, usable: bool) -> None:
        with self._lock:
            if usable and not self._closed:
                self._idle.append(channel)
                return
        channel.close()

    def _connect(self) -> Channel:
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(CONNECT_SECONDS)
            connection.connect(socket_path(self._directory, descriptor))
            if not same_user(connection):
                raise StorageError(f"the socket in {self._directory} belongs to another user")
            connection.settimeout(self._seconds)
        except BaseException:
            connection.close()
            raise
        finally:
            os.close(descriptor)
        return Channel(connection, self.trust)


def _error(name: str, *args: str) -> Exception:
    """Return the error that the other process has raised."""
    kind = getattr(errors, name, None) or getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        return kind(*args)
    return StorageError(": ".join((name, *args)))
