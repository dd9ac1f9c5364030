"""Answers other processes, in threads of the process that has the store open.

It listens at a Unix socket in the directory of the store, which only its user may enter; the kernel
says whose process calls. There is one thread for each connection.
"""

from __future__ import annotations

import os
import select
import socket
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from memories.errors import MemoriesError, StorageError
from memories.foundation.fork_lock import new_lock
from memories.foundation.forks import after_fork
from memories.foundation.logging import logger
from memories.foundation.periodic import BackgroundThread
from memories.foundation.system import path_below, peer_user
from memories.sharing.messages import Channel, LostError, RetiredError
from memories.sharing.service import Service

SOCKET_NAME = "shared.sock"
END_SECONDS = 10.0  # How long calls in progress may take when the writer ends.
_BACKLOG = 128
_LONGEST_PATH = 100  # Of a Unix socket; the kernel takes 108 bytes, that of macOS 104.


class Server:
    """Listens for as long as the store is open.

    Args:
        service: What carries out the calls.
        directory: The directory of the store.
    """

    def __init__(self, service: Service, directory: Path) -> None:
        self._service = service
        self._directory = directory
        self._lock = new_lock()
        self._threads: set[BackgroundThread] = set()
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._listener = _listen(directory)
        self._connections: set[socket.socket] = set()
        self._stopping = False
        _all.add(self)
        self._start(self._accept)

    def stop(self) -> None:
        """Finish the calls in progress, and tell all others that the writer retires. Idempotent."""
        with self._lock:
            if self._stopping:
                return
            self._stopping = True
        self._wake_sender.send(b"x")  # It is never read: every thread sees it.
        for thread in list(self._threads):
            thread.join_within(END_SECONDS)
        self._close()
        self._service.close()

    def _close(self) -> None:
        for one in (self._listener, self._wake_receiver, self._wake_sender, *self._connections):
            one.close()

    def _start(self, work: Callable[[], None]) -> None:
        """Start a thread that is forgotten when it ends."""

        def run() -> None:
            try:
                work()
            finally:
                with self._lock:
                    self._threads.discard(thread)

        thread = BackgroundThread(run, "sharing")
        with self._lock:
            self._threads.add(thread)
        thread.start()

    def _accept(self) -> None:
        poll = self._poll(self._listener)
        while self._readable(poll):
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                logger.warning("another process cannot be answered: %s", error)
                continue
            if not same_user(connection):
                connection.close()
                continue
            with self._lock:
                self._connections.add(connection)
            self._start(partial(self._answer, connection))
        try:
            (self._directory / SOCKET_NAME).unlink(missing_ok=True)
        except OSError as error:
            logger.debug("the socket of the store is not removed: %s", error)

    def _answer(self, connection: socket.socket) -> None:
        channel = Channel(connection, self._service.trust)
        try:
            poll = self._poll(connection)
            while self._readable(poll):
                name, args, kwargs = channel.receive()
                outcome = self._outcome(name, args, kwargs)
                try:
                    channel.send(*outcome)
                except MemoriesError as error:  # The result cannot be sent.
                    channel.send(*_failed(error))
            channel.retire()
        except (LostError, RetiredError):
            pass  # The other process has ended.
        except (MemoriesError, TypeError, ValueError) as error:
            logger.warning("another process has sent what is not a call: %s", error)
        finally:
            channel.close()
            with self._lock:
                self._connections.discard(connection)

    def _outcome(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[str, Sequence[Any], Mapping[str, Any]]:
        """Return the answer to a call."""
        try:
            return "done", (self._service.call(name, args, kwargs),), {}
        except Exception as error:  # It is raised in the process that called.
            return _failed(error)

    def _readable(self, poll: select.poll) -> bool:
        """Wait until there is something to read; return False if the writer retires first."""
        ready = {descriptor for descriptor, _ in poll.poll()}
        return self._wake_receiver.fileno() not in ready

    def _poll(self, connection: socket.socket) -> select.poll:
        poll = select.poll()
        for one in (connection, self._wake_receiver):
            poll.register(one, select.POLLIN)
        return poll

    def _in_child(self) -> None:
        """Close what only the parent answers: others must notice the end of the parent."""
        self._stopping = True
        self._close()


def _failed(error: Exception) -> tuple[str, Sequence[Any], Mapping[str, Any]]:
    return "failed", (type(error).__name__, *map(str, error.args)), {}


def socket_path(directory: Path, descriptor: int) -> str:
    """Return the path of the socket of a store; through the open directory if it is too long."""
    path = str(directory / SOCKET_NAME)
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        return path
    short = path_below(descriptor, SOCKET_NAME)
    if short is None:
        raise StorageError(f"{path} is longer than a Unix socket may be named: use a shorter path")
    return short


def same_user(connection: socket.socket) -> bool:
    """Return whether the process at the other end belongs to this user, or to root."""
    user = peer_user(connection)
    # Where it is unknown, the directory of the store lets in this user only.
    return user is None or user in (0, os.geteuid())


def _listen(directory: Path) -> socket.socket:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # What is left of a writer that was killed; this process holds the lock of the store.
        (directory / SOCKET_NAME).unlink(missing_ok=True)
        listener.bind(socket_path(directory, descriptor))
        (directory / SOCKET_NAME).chmod(0o600)
        listener.listen(_BACKLOG)
        return listener
    except OSError as error:
        listener.close()
        raise StorageError(f"{directory} cannot hold a socket: {error}") from error
    finally:
        os.close(descriptor)


_all: weakref.WeakSet[Server] = weakref.WeakSet()
after_fork(_all, Server._in_child)
