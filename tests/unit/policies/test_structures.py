from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from memories.policies.ghost_table import GhostTable
from memories.policies.hashing import digest
from memories.policies.lazy_priority_queue import LazyPriorityQueue
from memories.policies.paged_queue import PagedQueue
from memories.testing.policies import PlainNode


class QueueMachine(RuleBasedStateMachine):
    """A page queue behaves as a plain list with a finger between its elements."""

    def __init__(self):
        super().__init__()
        self.queue = PagedQueue()
        self.list = []
        self.number = 0

    @rule(count=st.integers(1, 150))
    def append(self, count):
        for _ in range(count):
            self.number += 1
            node = PlainNode(str(self.number), 1 + self.number % 7)
            self.queue.append(node, self.number)
            self.list.append((node, self.number))

    @precondition(lambda self: self.list)
    @rule(share=st.floats(0, 0.999), count=st.integers(1, 60))
    def remove(self, share, count):
        for _ in range(min(count, len(self.list))):
            node, seen = self.list.pop(int(share * len(self.list)))
            assert seen == self.queue.remove(node)

    @precondition(lambda self: self.list)
    @rule()
    def popleft(self):
        assert self.list.pop(0) == self.queue.popleft()

    @precondition(lambda self: self.list)
    @rule(steps=st.integers(0, 200))
    def turn_and_take(self, steps):
        for _ in range(steps):
            self.queue.advance()
            self.queue.index += 1
        self.queue.advance()
        expected = self.queue.hand.nodes[self.queue.index]
        node, seen = self.queue.take(self.queue.hand, self.queue.index)
        assert expected is node
        self.list.remove((node, seen))

    @invariant()
    def agree(self):
        self.queue.check()
        assert self.list == list(self.queue)


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("seed", range(10))
def test_the_hand_does_not_move_when_others_leave(seed):
    """SIEVE would spare or judge nodes twice if the hand slipped over them, or pages merged."""
    queue = PagedQueue()
    nodes = [PlainNode(str(number)) for number in range(200)]
    for node in nodes:
        queue.append(node, 0)
    for _ in range(100):
        queue.advance()
        queue.index += 1
    queue.advance()
    resting = queue.hand.nodes[queue.index]
    random.Random(seed).shuffle(nodes)
    for node in nodes:
        if node is not resting:
            queue.remove(node)
            queue.advance()
            assert queue.hand.nodes[queue.index] is resting


class PriorityQueueMachine(RuleBasedStateMachine):
    """The queue behaves as a list sorted by rank, with equals in order of arrival."""

    def __init__(self):
        super().__init__()
        self.queue = LazyPriorityQueue()
        self.list = []
        self.number = 0

    @rule(ranks=st.lists(st.integers(0, 50), min_size=1, max_size=200))
    def add(self, ranks):
        for rank in ranks:
            self.number += 1
            node = PlainNode(str(self.number))
            self.queue.add(node, rank)
            self.list.append((rank, self.number, node))
        self.list.sort(key=lambda item: item[:2])

    @precondition(lambda self: self.list)
    @rule(count=st.integers(1, 100))
    def pop(self, count):
        for _ in range(min(count, len(self.list))):
            rank, _, node = self.list.pop(0)
            assert rank == self.queue.lowest()
            assert (node, rank) == self.queue.pop()

    @precondition(lambda self: self.list)
    @rule(share=st.floats(0, 0.999), count=st.integers(1, 60))
    def remove(self, share, count):
        for _ in range(min(count, len(self.list))):
            rank, _, node = self.list.pop(int(share * len(self.list)))
            assert rank == self.queue.remove(node)

    @invariant()
    def agree(self):
        self.queue.check()
        assert [(node, rank) for rank, _, node in self.list] == list(self.queue)


TestPriorityQueue = PriorityQueueMachine.TestCase
TestPriorityQueue.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("structure", [PagedQueue, LazyPriorityQueue])
def test_an_empty_structure_says_so(structure):
    """Returning something else would be taken for a node."""
    empty = structure()
    with pytest.raises(IndexError):
        empty.popleft() if structure is PagedQueue else empty.pop()


@pytest.mark.parametrize("structure", [PagedQueue, LazyPriorityQueue])
def test_a_node_takes_less_than_thirty_bytes(structure):
    """A million small items are allowed 250 bytes each, for everything."""
    import tracemalloc

    nodes = [PlainNode(str(number)) for number in range(50_000)]
    stamps = list(range(50_000))
    tracemalloc.start()
    try:
        queue = structure()
        add = queue.append if structure is PagedQueue else queue.add
        for node, stamp in zip(nodes, stamps, strict=True):
            add(node, stamp)
        assert tracemalloc.get_traced_memory()[0] / len(nodes) < 30
    finally:
        tracemalloc.stop()


@given(st.lists(st.integers(0, 30), max_size=200), st.integers(1, 20))
def test_ghosts_are_never_invented_and_grow_too_old(added, span):
    """A false ghost would let a stranger into the main queue; an immortal one likewise."""
    ghosts = GhostTable()
    for note, number in enumerate(added):
        ghosts.add(digest(str(number)), span, note)
        ghosts.check()
    for number in range(31):
        last = max((at for at, other in enumerate(added) if other == number), default=None)
        young = last is not None and len(added) - 1 - last < span
        bits = digest(str(number))
        if ghosts.has(bits, span):
            assert young
            assert last == ghosts.take(bits, span)
            assert not ghosts.has(bits, span)


def test_a_ghost_that_was_taken_is_gone_from_older_tables_too():
    """The table grows by keeping the old one beside it; a key may lie in both."""
    ghosts = GhostTable()
    ghosts.add(digest("key"), 20)
    ghosts.add(digest("other"), 1000)
    ghosts.add(digest("key"), 1000, 7)
    assert ghosts.has(digest("other"), 1000)
    assert 7 == ghosts.take(digest("key"), 1000)
    assert not ghosts.has(digest("key"), 1000)


def test_ghosts_survive_the_growth_of_their_table():
    """A tier that fills up must not forget at every doubling what has just left it."""
    ghosts = GhostTable()
    ghosts.add(digest("key"), 20)
    ghosts.add(digest("other"), 1000)
    assert ghosts.has(digest("key"), 1000)


@pytest.mark.parametrize("span", [50, 5_000])
def test_nearly_all_ghosts_are_found(span):
    """The table may lose a few to collisions, not so many that the policy suffers."""
    ghosts = GhostTable()
    for number in range(3 * span):
        ghosts.add(digest(str(number)), span)
    found = sum(ghosts.has(digest(str(number)), span) for number in range(2 * span, 3 * span))
    assert found > 0.8 * span


def test_a_digest_is_the_same_in_every_process():
    """A replay must decide the same today and tomorrow, whatever the seed of `hash`."""
    assert 0x6B3CA0546AD7EEE5 == digest("tile/12/34")


def test_any_text_has_a_digest():
    """Even what could not be a key must not stop a replay of foreign traces."""
    assert digest("\ud800") != digest("")


def test_a_table_of_ghosts_shrinks_when_few_nodes_are_left():
    """A tier that held a million values once kept 27 MB for the ghosts of them, for ever."""
    ghosts = GhostTable()
    for number in range(4000):
        ghosts.add(digest(f"many/{number}"), 4000)
    assert ghosts._table.size >= 8000
    for number in range(64):
        ghosts.add(digest(f"few/{number}"), 8)
    assert 64 == ghosts._table.size
    assert ghosts._older is None
    assert ghosts.has(digest("few/63"), 8)
    ghosts.check()


def test_a_ghost_that_is_dropped_takes_its_room_along():
    """Nothing may be added for long after a tier was emptied."""
    ghosts = GhostTable()
    for number in range(4000):
        ghosts.add(digest(f"key/{number}"), 4000)
    ghosts.drop(digest("key/3999"), 4000)
    assert not ghosts.has(digest("key/3999"), 4000)
    assert ghosts.has(digest("key/3998"), 4000)
    ghosts.drop(digest("key/3998"), 1)
    assert 64 == ghosts._table.size
