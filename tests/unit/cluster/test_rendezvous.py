"""Rendezvous hashing: nodes of a name, and the sizes of quorums."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from memories.cluster.rendezvous import group_by_preference, prefer, rank

NODES = [f"node{number}:6379" for number in range(10)]


def test_an_added_or_removed_node_moves_only_its_share() -> None:
    """With n nodes, one n-th of the keys moves, and no key moves between two that stay."""
    names = [b"key %d" % number for number in range(4000)]
    before = {name: rank(name, NODES)[0] for name in names}
    after = {name: rank(name, NODES[:-1])[0] for name in names}
    moved = [name for name in names if before[name] != after[name]]
    assert {NODES[-1]} == {before[name] for name in moved}
    assert 300 < len(moved) < 500
    assert max(Counter(before.values()).values()) < 1.3 * 400


@given(st.binary(min_size=1), st.integers(1, 10), st.integers(1, 5))
def test_any_answers_of_a_list_include_a_node_that_has_the_write(
    name: bytes, count: int, copies: int
) -> None:
    """The inequality on which the protocol is based."""
    if copies > count:
        return
    one = prefer(name, NODES[:count], copies)
    assert min(count, 2 * copies - 1) == len(one.nodes)
    for stored in combinations(one.nodes, one.copies):
        for asked in combinations(one.nodes, one.answers):
            assert set(stored) & set(asked)


@given(st.sets(st.binary(min_size=1), max_size=30), st.integers(1, 10), st.integers(1, 5))
def test_many_names_are_grouped_as_each_one_prefers(
    names: set[bytes], count: int, copies: int
) -> None:
    """A write of many and a read of one must go to the same nodes."""
    copies = min(count, copies)
    groups = group_by_preference(names, tuple(NODES[:count]), copies)
    found = {name: place for place, some in groups.items() for name in some}
    assert {name: prefer(name, NODES[:count], copies) for name in names} == found
