"""Rendezvous hashing (Thaler and Ravishankar 1998): the nodes on which a key or chunk belongs.

Each node gets a score for each name, and the nodes with the highest scores hold it. A node that is
added or removed therefore moves only the names for which it has one of the highest scores. The
functions are pure, and do not know which nodes are alive.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from itertools import repeat
from typing import NamedTuple

import numpy as np
import xxhash


class Preference(NamedTuple):
    """The nodes that may hold a key, best first, and the sizes of its write and read quorum.

    With n nodes and a replication factor of rf, a key has `min(n, 2 rf - 1)` nodes. A write is
    acknowledged once `copies` of them have it; any `answers` of them include one that has it.
    """

    nodes: tuple[str, ...]
    copies: int
    answers: int

    @property
    def asked(self) -> tuple[str, ...]:
        """Return the nodes that are asked first: their equal replies prove what is newest."""
        return self.nodes[: max(self.answers, self.copies)]

    def without(self, lost: Collection[str]) -> Preference:
        """Return the list without nodes that are lost: of the others all that are needed answer."""
        nodes = tuple(node for node in self.nodes if node not in lost)
        return Preference(nodes, min(self.copies, len(nodes)), min(self.answers, len(nodes)))


def rank(name: bytes, nodes: Sequence[str]) -> list[str]:
    """Return `nodes` in the order in which `name` prefers them.

    This takes one hash per node. The order of any two nodes does not depend on the others.
    """
    score, seed = xxhash.xxh3_64_intdigest, xxhash.xxh3_64_intdigest(name)
    scored = [(score(encoded, seed), node) for encoded, node in _encoded(tuple(nodes))]
    scored.sort(reverse=True)
    return [node for _, node in scored]


def prefer(name: bytes, nodes: Sequence[str], copies: int) -> Preference:
    """Return the nodes that may hold the register of `name`, for `copies` copies of it."""
    return _preference(tuple(rank(name, nodes)[: list_length(len(nodes), copies)]), copies)


def group_by_preference(
    names: Iterable[bytes], nodes: tuple[str, ...], copies: int
) -> dict[Preference, list[bytes]]:
    """Return the names that have each list of nodes; as `prefer` for every name, in fewer steps."""
    digest, names = xxhash.xxh3_64_intdigest, list(names)
    seeds = list(map(digest, names))
    encoded = sorted(_encoded(nodes), reverse=True)  # Of equal scores the greater name is first.
    scores = np.empty((len(encoded), len(names)), np.uint64)
    for row, (one, _) in zip(scores, encoded, strict=True):
        row[:] = np.fromiter(map(digest, repeat(one), seeds), np.uint64, len(names))
    ranked = np.argsort(~scores, axis=0, kind="stable")[: list_length(len(nodes), copies)]
    groups: dict[tuple[int, ...], list[bytes]] = defaultdict(list)
    for name, chosen in zip(names, zip(*ranked.tolist(), strict=True), strict=True):
        groups[chosen].append(name)
    return {
        _preference(tuple([encoded[one][1] for one in chosen]), copies): some
        for chosen, some in groups.items()
    }


def list_length(nodes: int, copies: int) -> int:
    """Return how many nodes a key's preference list has."""
    return min(nodes, 2 * copies - 1)


@lru_cache(1024)
def _preference(chosen: tuple[str, ...], copies: int) -> Preference:
    return Preference(chosen, copies, len(chosen) - copies + 1)


@lru_cache(16)
def _encoded(nodes: tuple[str, ...]) -> list[tuple[bytes, str]]:
    return [(node.encode(), node) for node in nodes]
