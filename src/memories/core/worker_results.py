"""Takes the results that forked workers compute: only the process that opened a store writes it.

A worker packs a result into a frame in anonymous memory, and sends its descriptor through a socket
that it has inherited. A thread of the parent stores the result. The kernel queues a few results;
when the queue is full, workers wait a moment, and then give theirs up, which can be computed again.
"""

from __future__ import annotations

import os
import socket
import weakref
from collections import deque
from collections.abc import Callable

import msgspec

from memories.core.lifecycle import Lifecycle
from memories.core.value_writer import NewResult
from memories.engine.hierarchy import Hierarchy
from memories.engine.lifecycle_state import LifecycleState
from memories.engine.payload import Payload
from memories.errors import MemoriesError
from memories.foundation.anonymous_file import CLOSE_ON_EXEC, anonymous_file
from memories.foundation.fork_lock import new_lock
from memories.foundation.forks import after_fork, before_fork
from memories.foundation.logging import logger
from memories.foundation.periodic import Latch, Periodic
from memories.frames.compression_history import CompressionHistory

MAX_RESULT = 64 << 20  # Larger results are not handed over: they are in RAM until they are stored.
SEND_SECONDS = 5.0
_MAX_MESSAGE = 1 << 14  # More than the longest key.
_DRAIN = b"drain"  # No result: those are arrays of MessagePack.


class WorkerResults:
    """Takes results from the forked children of the process that made this object.

    Args:
        hierarchy: Where results are stored.
        store: Stores a result.
        lifecycle: The life of the manager: what workers have sent is stored before it ends.
    """

    def __init__(
        self,
        hierarchy: Hierarchy,
        store: Callable[[NewResult, Payload], object],
        lifecycle: Lifecycle,
    ) -> None:
        self._hierarchy = hierarchy
        self._store = store
        self._lifecycle = lifecycle
        self._owner = os.getpid()
        self._lock = new_lock()
        self._sockets: tuple[socket.socket, socket.socket] | None = None  # To receive, to send.
        self._waiting: deque[Latch] = deque()  # Calls of `drain`, in the order of their messages.
        self._thread = Periodic(self._receive, "worker-results")
        _all.add(self)

    def listen(self) -> None:
        """Start to take results, unless it has been done. The process is about to fork."""
        with self._lock:
            if (
                self._sockets is not None
                or self._thread.stopped
                or os.getpid() != self._owner
                or self._hierarchy.state is not LifecycleState.OPEN
            ):
                return
            try:
                receiver, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            except OSError as error:
                logger.warning("results of forked workers are not kept: %s", error)
                return
            sender.settimeout(SEND_SECONDS)  # Before the fork: all processes share this state.
            self._sockets = receiver, sender
            self._lifecycle.ends_before(self.stop, "results of workers")
            self._lifecycle.before_flush.append(self.drain)
        self._thread.wake()

    def hand_over(self, about: NewResult, payload: Payload) -> bool:
        """In a forked child, send a result to the parent; return whether it was sent."""
        sockets = self._sockets
        if sockets is None or os.getpid() == self._owner or payload.size > MAX_RESULT:
            return False
        frame = payload.to_frame(
            key=about.key, version=1, compression="none", trust=self._hierarchy.trust,
            history=CompressionHistory(),
        )  # fmt: skip
        try:
            with anonymous_file("memories-result") as file:
                for segment in frame.segments:
                    file.write(segment)
                file.flush()
                socket.send_fds(sockets[1], [msgspec.msgpack.encode(about)], [file.fileno()])
        except OSError as error:  # The parent is gone or busy, or there is no room.
            logger.debug("a result is not handed over to the parent: %s", error)
            return False
        return True

    def drain(self) -> None:
        """Store what workers have sent until now; wait for it no longer than they would."""
        sockets = self._sockets
        if sockets is None or os.getpid() != self._owner:
            return
        drained = Latch()
        with self._lock:
            self._waiting.append(drained)
            try:
                sockets[1].send(_DRAIN)
            except OSError as error:  # It is full: what workers send takes too long to store.
                self._waiting.pop()
                logger.warning("results of workers are not waited for: %s", error)
                return
        drained.wait(SEND_SECONDS)

    def stop(self) -> None:
        """End, after what workers have sent is stored. Idempotent."""
        with self._lock:
            sockets, self._sockets = self._sockets, None
        if sockets is not None:
            if os.getpid() == self._owner:
                sockets[0].shutdown(socket.SHUT_RD)  # The thread reads the queue to its end.
            self._thread.stop()
            for one in sockets:
                one.close()

    def _receive(self) -> None:
        sockets = self._sockets
        while sockets is not None:
            message, descriptors, _, _ = socket.recv_fds(sockets[0], _MAX_MESSAGE, 1, CLOSE_ON_EXEC)
            if not message:
                return  # `stop` was called.
            if message == _DRAIN:
                self._waiting.popleft().set()
                continue
            try:
                self._take(msgspec.msgpack.decode(message, type=NewResult), descriptors[0])
            except MemoriesError as error:
                logger.debug("a result of a worker is not kept: %s", error)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)

    def _take(self, about: NewResult, descriptor: int) -> None:
        if self._hierarchy.catalog.lookup(about.key) is not None:
            return  # Another worker was first.
        frame = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        payload = Payload.of_frame(memoryview(frame), key=about.key)
        self._store(about, payload.to_host(self._hierarchy.trust, copy=False))

    def _in_child(self) -> None:
        """Close the end that only the parent reads: a worker must notice the parent's end."""
        if self._sockets is not None:
            self._sockets[0].close()


_all: weakref.WeakSet[WorkerResults] = weakref.WeakSet()
before_fork(_all, WorkerResults.listen)
after_fork(_all, WorkerResults._in_child)
