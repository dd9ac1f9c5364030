"""The service over all nodes of one manager, for both kinds of replication.

It owns the connections, the worker threads, and the maintenance thread that probes failing nodes
and brings restarted ones up to date.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from memories.cluster.chunks import ChunkStore
from memories.cluster.client.address import NodeAddress
from memories.cluster.client.node import Node
from memories.cluster.client.resp import ReplyError
from memories.cluster.near_cache.freshness import Freshness
from memories.cluster.near_cache.invalidation import InvalidationListener, ListenerQuorum
from memories.cluster.register_api import Registers
from memories.cluster.register_format import name_prefix
from memories.cluster.repair_report import RepairReport
from memories.cluster.seal import NodeSeal
from memories.cluster.settling import Settling
from memories.cluster.store import FrameStore
from memories.errors import ClosedError, ForkedError, UnavailableError
from memories.foundation.clock import Clock
from memories.foundation.fork_lock import holds_none, interrupting
from memories.foundation.forks import after_fork
from memories.foundation.periodic import Latch, Periodic
from memories.foundation.worker_pool import WorkerPool
from memories.progress import Progress

WORKERS = 32
_MAINTENANCE_SECONDS = 0.25


class NodeService(ABC):
    """What a manager needs from its nodes."""

    registers: Registers
    chunks: ChunkStore

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.workers = WorkerPool(WORKERS, "nodes")
        self.forked = False
        self.holds_lock: Callable[[], bool] = holds_none  # Whether this thread holds any lock.
        self._ended = Latch()
        self._maintenance = Periodic(
            self._do_turn, "nodes-maintenance", seconds=_MAINTENANCE_SECONDS
        )
        self._settling = Settling(
            lambda ended: self.registers.settle(ended), clock.monotonic, clock.wall
        )
        self._freshness: Freshness | None = None
        self._listener: InvalidationListener | None = None
        _services.add(self)

    @property
    def closed(self) -> bool:
        """Return whether it was closed."""
        return self._ended.is_set()

    def start(self) -> None:
        """Start the maintenance thread, which ends with the service."""
        self._maintenance.start()

    def frames(self, namespace: str, seal: NodeSeal | None = None) -> FrameStore:
        """Return the store of the frames of one namespace; `seal` encrypts them."""
        return FrameStore(self.registers, self.chunks, self.clock, self._settling, namespace, seal)

    def start_near_cache(
        self, freshness: Freshness, namespace: str, seal: NodeSeal | None = None
    ) -> None:
        """Invalidate local copies from now on, as the nodes report writes."""
        self._freshness = freshness
        self._listener = InvalidationListener(
            freshness,
            self.nodes,
            self.listener_quorums,
            self.clock.monotonic,
            prefix=name_prefix(namespace) if seal is None else seal.prefix,
            key_of=None if seal is None else seal.open_key,
        )
        self._listener.start()

    def require_open(self, *, writing: bool = False) -> None:
        """Raise unless the nodes may be used.

        Raises:
            ClosedError: the manager was cleaned up.
            ForkedError: this is a forked child, which may only read.
            BusyError: a signal handler or a destructor asks, in the middle of another call.
        """
        if self.holds_lock():
            raise interrupting()
        if self.closed:
            raise ClosedError("this manager was cleaned up; make a new DistributedMemoryManager")
        if writing and self.forked:
            raise ForkedError(
                "this manager was opened before the fork; a child process may read from its "
                "nodes, but to write it needs a DistributedMemoryManager of its own"
            )

    def pause(self, seconds: float) -> bool:
        """Wait for `seconds`, and return whether the service has been closed."""
        return self._ended.wait(seconds)

    def maintain(self) -> None:
        """Probe failing nodes, and do what else is due for them; called a few times a second."""
        for node in self.all_nodes():
            if node.due:
                self.workers.submit(self._probe, node)
        self.look_after()

    @abstractmethod
    def look_after(self) -> None:
        """Notice what has changed on the nodes, and do what follows from it."""

    @abstractmethod
    def nodes(self) -> Iterable[Node]:
        """Return all nodes that accept writes."""

    @abstractmethod
    def all_nodes(self) -> Iterable[Node]:
        """Return all nodes."""

    @abstractmethod
    def listener_quorums(self) -> Iterable[ListenerQuorum]:
        """Return the sets of nodes to listen to, so that no acknowledged write is missed."""

    @abstractmethod
    def status(self) -> dict[str, dict[str, Any]]:
        """Return the state of each node, by its name."""

    @abstractmethod
    def repair(self, progress: Progress | None, *, deep: bool) -> RepairReport:
        """Repair all copies, remove garbage, and return what was done."""

    @abstractmethod
    def change_members(
        self,
        add: Sequence[NodeAddress],
        remove: Collection[str],
        *,
        lost: bool,
        progress: Progress | None,
    ) -> None:
        """Add and remove members, and copy to each what it should have.

        With `lost` the removed ones are dead for good, and what only they had is given up.
        """

    @abstractmethod
    def abandon_change(self) -> None:
        """Take back a change of members that was interrupted."""

    def close(self) -> None:
        """End threads and connections. Idempotent."""
        if not self.forked and not self.closed and self._settling:
            self._settling.run()  # Else what was deleted a moment ago would stay until a repair.
        self._ended.set()
        self._maintenance.stop(0.0)
        self.workers.close(0.0)
        self.disconnect()  # Threads that wait for an answer fail at once.
        self.workers.close()
        self._maintenance.stop()
        if self._listener is not None:
            self._listener.stop()
        _services.discard(self)

    @abstractmethod
    def disconnect(self) -> None:
        """Close all connections."""

    def _do_turn(self) -> None:
        self.maintain()
        if self._settling.due:
            self.workers.submit(self._settling.run)

    def _probe(self, node: Node) -> None:
        """Ask a node whether it answers, and note on it why it does not."""
        try:
            node.probe()
        except (UnavailableError, ReplyError) as error:
            node.last_error = str(error)

    def _ask_status(self, ask: Callable[[Node], dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Return what `ask` returns for each node, by its name; all are asked in parallel."""
        asked = list(self.all_nodes())
        states = self.workers.map(ask, asked, ahead=WORKERS)
        return {node.address.name: state for node, state in zip(asked, states, strict=True)}

    def after_fork(self) -> None:
        """In a forked child: stop using the threads and connections of the parent."""
        self.forked = True
        if self._freshness is not None:
            self._freshness.close()
        self.workers = WorkerPool(WORKERS, "nodes")


_services: weakref.WeakSet[NodeService] = weakref.WeakSet()
after_fork(_services, NodeService.after_fork)
