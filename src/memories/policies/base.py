"""The interface of an eviction policy, which decides in what order entries leave a tier.

Policies are plain data structures: no lock, no clock, no I/O. A hit calls no method: the engine
updates `hits` and `stamp` of the node itself, and a policy compares them with the values it saw
before when it is asked for a victim. The simulator replays traces through the same objects.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Protocol


class PolicyNode(Protocol):
    """What a policy may know of an entry. `link` belongs to the policy, the rest is read-only."""

    key: str
    size: int  # Bytes, at least 1.
    hits: int  # Accesses so far; only ever grows.
    stamp: int  # Grows with every access within the tier: a larger stamp is more recent.
    link: Any


class Policy(ABC):
    """Orders the nodes of one tier for eviction.

    The caller serialises all calls. A node is inserted at most once before it is removed or
    evicted. Nodes that must stay (pinned) are not in the policy. A node's `link` MUST be None
    exactly while it is outside, and the policy MUST NOT hold a node that has left. Stamps come from
    the tier's own counter: a node that enters, or returns, has a new stamp before `insert`.
    """

    name: ClassVar[str]
    # Whether `insert_expected` may come later than the node. Not inherited: a class says so itself.
    patient: ClassVar[bool] = False

    def __init__(self, capacity: int) -> None:
        """Start empty, for a tier of `capacity` bytes."""
        self.capacity = capacity

    @abstractmethod
    def insert(self, node: PolicyNode) -> None:
        """Add a node that has just entered the tier."""

    @abstractmethod
    def remove(self, node: PolicyNode) -> None:
        """Forget a node that left for a reason other than eviction."""

    @abstractmethod
    def evict(self) -> PolicyNode | None:
        """Take out and return the node that should leave next, or None when empty."""

    @abstractmethod
    def __len__(self) -> int:
        """Return how many nodes are inside."""

    def admit(self, node: PolicyNode) -> bool:
        """Decide whether `node` should enter although others would have to leave for it.

        Asked before room is made, at most once per arrival; the node is not inside. A refusal is
        advice: a caller who must take the node may insert it all the same.
        """
        del node
        return True

    def forget(self, key: str) -> None:
        """Delete everything remembered of `key`, which was removed from all tiers.

        No node of the key is inside. The history MUST be deleted, or memory would grow with every
        new key.
        """
        del key

    def samples(self, key: str) -> bool:
        """Return whether hits of `key` should be reported through `observe`.

        Asked when an entry is made. A key sampled once may be reported from then on.
        """
        del key
        return False

    def observe(self, accesses: Iterable[tuple[str, int]]) -> None:
        """Queue past accesses, (key, size) in their order; those not sampled are ignored.

        They are hits within the tier, and reads answered by a lower tier that did not promote the
        value; an insert counts as an access by itself. The caller may lose some under load. The
        work that they cause is done by `process_observed`.
        """
        del accesses

    def process_observed(self) -> bool:
        """Process some of the queued accesses; return whether more are left.

        Called in the background; the caller releases its lock between two calls.
        """
        return False

    def expect(
        self, nodes: Sequence[PolicyNode], digests: Sequence[int], total: int
    ) -> Sequence[PolicyNode]:
        """Get nodes that came, in their order; return those whose hits should be reported.

        Each gets inserted by `insert_expected`, as it was when it came, before the next decision.
        If it leaves before, `skip` is called. `total` nodes are in the tier now.
        """
        del digests, total
        return [node for node in nodes if self.samples(node.key)]

    def insert_expected(self, node: PolicyNode) -> None:
        """Insert a node that was announced to `expect`."""
        self.insert(node)

    def skip(self, key: str) -> None:
        """Do what `insert_expected` and `remove` would do to the history of `key`."""
        del key

    def remembers(self) -> bool:
        """Return whether there may be keys to which `skip` would do something."""
        return False

    def insert_without_access(self, node: PolicyNode) -> None:
        """Add a node whose arrival is not an access, such as a demotion from the tier above.

        A policy that replaces another one gets all its nodes in this way, the first victims first.
        """
        self.insert(node)

    def resize(self, capacity: int) -> None:
        """Set the capacity of the tier to `capacity` bytes."""
        self.capacity = capacity

    def check(self) -> None:
        """Assert every invariant of the structure; for tests, in time linear in its size."""
