"""What an eviction policy is: an opinion on who leaves first, and nothing else.

Policies are plain data structures: no lock, no clock, no I/O. A hit costs them nothing: the engine
marks `hits` and `stamp` on the node itself, and a policy compares them with what it saw last when
it is asked for a victim. The simulator replays traces through the same objects.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, Protocol


class Node(Protocol):
    """What a policy may know of an entry. `link` belongs to the policy, the rest is read-only."""

    key: str
    size: int  # Bytes, at least 1.
    hits: int  # Accesses so far; only ever grows.
    stamp: int  # Grows with every access within the tier: a larger stamp is more recent.
    link: Any


class Policy(ABC):
    """Orders the nodes of one tier for eviction.

    The caller serialises all calls. A node is inserted at most once before it is removed or
    evicted. Nodes that must stay (pinned) are simply not in the policy. A node's `link` MUST be
    None exactly while it is outside, and the policy MUST NOT hold a node that has left. Stamps come
    from the tier's own counter: whoever enters, or comes back, has a new one before `insert`.
    """

    name: ClassVar[str]

    def __init__(self, capacity: int) -> None:
        """Start empty, for a tier of `capacity` bytes."""
        self.capacity = capacity

    @abstractmethod
    def insert(self, node: Node) -> None:
        """Add a node that has just entered the tier."""

    @abstractmethod
    def remove(self, node: Node) -> None:
        """Forget a node that left for a reason other than eviction."""

    @abstractmethod
    def evict(self) -> Node | None:
        """Take out and return the node that should leave next, or None when empty."""

    @abstractmethod
    def __len__(self) -> int:
        """Return how many nodes are inside."""

    def admit(self, node: Node) -> bool:
        """Decide whether `node` should enter although others would have to leave for it.

        Asked before room is made, at most once per arrival; the node is not inside. A refusal is
        advice: a caller who must take the node may insert it all the same.
        """
        del node
        return True

    def forget(self, key: str) -> None:
        """Learn that `key` is in no tier any more, removed and not moved; no node of it is inside.

        Whatever is remembered of its past MUST go: keys may come and go for ever.
        """
        del key

    def samples(self, key: str) -> bool:
        """Return whether the policy wants to hear of the hits of `key` through `observe`.

        Asked when an entry is made. A key sampled once may be reported for ever after.
        """
        del key
        return False

    def observe(self, accesses: Iterable[tuple[str, int]]) -> None:
        """Hear of past accesses, (key, size) in their order; those not sampled are ignored.

        Hits within the tier, and reads answered by a lower tier that did not bring the value up:
        an insert is an access by itself. Losing some under load is allowed. What it costs to learn
        from them is left to `learn`.
        """
        del accesses

    def learn(self) -> bool:
        """Learn from some of what was heard; return whether more is left.

        Called now and then while nobody waits, with the caller's lock given up between two calls.
        """
        return False

    def adopt(self, node: Node) -> None:
        """Add a node that was in the tier before this policy was; the least worthy come first."""
        self.insert(node)

    def resize(self, capacity: int) -> None:
        """Learn that the tier's capacity is now `capacity` bytes."""
        self.capacity = capacity

    def check(self) -> None:
        """Assert every invariant of the structure; for tests, in time linear in its size."""
