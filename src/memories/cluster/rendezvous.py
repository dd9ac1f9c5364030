"""Which nodes a key or a chunk belongs on: rendezvous hashing, and nothing else.

No I/O, no state, no knowledge of who is alive. The one idea: every node gets a score for every
name, and the highest scores win; so a node that comes or goes moves only what it wins or held.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import xxhash


class Preference(NamedTuple):
    """The nodes that may hold a key, best first, and how many of them each step needs.

    With n nodes and a replication factor of rf, a key has `min(n, 2 rf - 1)` nodes. A write is
    acknowledged at `copies` of them; any `answers` of them include one that took it.
    """

    nodes: tuple[str, ...]
    copies: int
    answers: int


def rank(name: bytes, nodes: Sequence[str]) -> list[str]:
    """Return `nodes` in the order in which `name` prefers them (rendezvous, Thaler 1998).

    Costs one hash per node. The order of any two nodes does not depend on the others.
    """
    seed = xxhash.xxh3_64_intdigest(name)
    return sorted(nodes, key=lambda node: (_score(seed, node), node), reverse=True)


def prefer(name: bytes, nodes: Sequence[str], copies: int) -> Preference:
    """Return where the register of `name` may lie, for `copies` copies of it."""
    chosen = rank(name, nodes)[: list_length(len(nodes), copies)]
    return Preference(tuple(chosen), copies, len(chosen) - copies + 1)


def list_length(nodes: int, copies: int) -> int:
    """Return how many nodes a key's preference list has."""
    return min(nodes, 2 * copies - 1)


def _score(seed: int, node: str) -> int:
    return xxhash.xxh3_64_intdigest(node.encode(), seed)
