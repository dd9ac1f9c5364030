"""A FIFO queue of nodes in pages, at about twenty bytes per node.

A node's `link` is its page, which it shares with its neighbours, so that the node is found and
removed without a list element of its own. A number is stored with each node: the hits that the
policy saw last.
"""

from __future__ import annotations

from collections.abc import Iterator

from memories.policies.base import PolicyNode

PAGE = 64


class QueuePage:
    """Up to `PAGE` neighbours in a queue."""

    __slots__ = ("next", "nodes", "prev", "queue", "seen")

    def __init__(self, queue: PagedQueue) -> None:
        self.queue = queue
        self.nodes: list[PolicyNode] = []
        self.seen: list[int] = []
        self.prev: QueuePage = self
        self.next: QueuePage = self


class PagedQueue:
    """Nodes in order of arrival, with one hand that may rest anywhere between them.

    Counts its bytes. `append`, `popleft` and `remove` cost a microsecond, whatever its length.
    """

    __slots__ = ("_end", "bytes", "count", "hand", "index")

    def __init__(self) -> None:
        self._end = QueuePage(self)  # The ring's empty page: before the first and after the last.
        self.hand = self._end
        self.index = 0
        self.count = 0
        self.bytes = 0

    def append(self, node: PolicyNode, seen: int) -> None:
        """Add `node` as the newest, remembering `seen` with it."""
        page = self._end.prev
        if page is self._end or len(page.nodes) >= PAGE:
            page = self._link_after(page)
        page.nodes.append(node)
        page.seen.append(seen)
        node.link = page
        self.count += 1
        self.bytes += node.size

    def popleft(self) -> tuple[PolicyNode, int]:
        """Remove the oldest node and return it with its number; IndexError if there is none."""
        if not self.count:
            raise IndexError("the queue is empty")
        return self.take(self._end.next, 0)

    def remove(self, node: PolicyNode) -> int:
        """Remove `node`, which must be inside, and return its number."""
        page: QueuePage = node.link
        return self.take(page, page.nodes.index(node))[1]

    def take(self, page: QueuePage, index: int) -> tuple[PolicyNode, int]:
        """Remove the node at `index` of `page`; the hand stays before the node it was before."""
        node, seen = page.nodes.pop(index), page.seen.pop(index)
        node.link = None
        self.count -= 1
        self.bytes -= node.size
        if self.hand is page and index < self.index:
            self.index -= 1
        if not page.nodes:
            self._unlink(page)
        elif len(page.nodes) <= PAGE // 4:
            self._merge(page, page.next)
        return node, seen

    def advance(self) -> None:
        """Move the hand to a node, wrapping around, if it rests behind the last of its page."""
        while self.count and self.index >= len(self.hand.nodes):
            self.hand = self.hand.next
            self.index = 0

    def _link_after(self, page: QueuePage) -> QueuePage:
        new = QueuePage(self)
        new.prev, new.next = page, page.next
        page.next.prev = new
        page.next = new
        return new

    def _unlink(self, page: QueuePage) -> None:
        if self.hand is page:
            self.hand, self.index = page.next, 0
        page.prev.next, page.next.prev = page.next, page.prev

    def _merge(self, page: QueuePage, other: QueuePage) -> None:
        """Move all of `other` to the end of `page` if they fit, so that pages never get sparse."""
        if other is self._end or len(page.nodes) + len(other.nodes) > PAGE:
            return
        if self.hand is other:
            self.hand, self.index = page, len(page.nodes) + self.index
        for node in other.nodes:
            node.link = page
        page.nodes += other.nodes
        page.seen += other.seen
        self._unlink(other)

    def __iter__(self) -> Iterator[tuple[PolicyNode, int]]:
        page = self._end.next
        while page is not self._end:
            yield from zip(page.nodes, page.seen, strict=True)
            page = page.next

    def check(self) -> None:
        """Assert that links, counts and bytes agree, and that the hand rests in the ring."""
        count = size = 0
        page, pages = self._end.next, [self._end]
        while page is not self._end:
            assert page.next.prev is page
            assert page.queue is self
            assert 0 < len(page.nodes) == len(page.seen) <= PAGE
            assert all(node.link is page for node in page.nodes)
            count += len(page.nodes)
            size += sum(node.size for node in page.nodes)
            pages.append(page)
            page = page.next
        assert (count, size) == (self.count, self.bytes)
        assert self.hand in pages
        assert 0 <= self.index <= len(self.hand.nodes)
