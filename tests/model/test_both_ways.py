"""The short way of a store, an overwrite and a delete, against the long way, as far as time allows.

The histories are the same on every machine; the long campaign, with new ones, is in
`tests/torture`. Those in which the two ways once differed are written down.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.model.both_ways import history, play

HISTORIES = 40
LENGTH = 25
OPTIONS = {
    "sizes": "roomy", "rules": False, "policy": "auto", "on_full": "raise", "write_through": False,
}  # fmt: skip

DIFFERED: dict[str, tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]] = {
    # The event of a write to the disk came before that of the store which it replaced.
    "a store into cold over one that waits": (
        OPTIONS,
        [
            ("clear", {}),
            ("store", {"key": "b", "kind": "none"}),
            ("store_into", {"key": "b", "kind": "large int", "tier": "cold"}),
        ],
    ),
    # The event of a read that found nothing came after that of the store which followed it.
    "a store into cold after a read that waits": (
        OPTIONS,
        [
            ("clear", {}),
            ("store", {"key": "b", "kind": "none"}),
            ("retrieve_as", {"key": "a", "copy": False}),
            ("store_into", {"key": "a", "kind": "text", "tier": "cold"}),
        ],
    ),
    "a new key for a value in cold after a read that waits": (
        OPTIONS,
        [
            ("clear", {}),
            ("store_into", {"key": "b", "kind": "text", "tier": "cold"}),
            ("store", {"key": "c/d", "kind": "none"}),
            ("retrieve_as", {"key": "a", "copy": False}),
            ("rename", {"key": "b", "new": "a"}),
        ],
    ),
    "many stores into cold after a read that waits": (
        OPTIONS,
        [
            ("clear", {}),
            ("store", {"key": "b", "kind": "none"}),
            ("retrieve_as", {"key": "a", "copy": False}),
            ("store_many", {"some": {"a"}, "kind": "none", "tier": "cold"}),
        ],
    ),
    # The policy had not been shown that it came, and gave it another place afterwards.
    "a newcomer that is pinned for a while": (
        OPTIONS | {"sizes": "no hot"},
        [("pin", {"key": "full/k", "pinned": True}), ("pin", {"key": "full/k", "pinned": False})],
    ),
    "a store with options over one that waits": (
        OPTIONS | {"sizes": "tiny", "on_full": "evict"},
        [
            ("clear", {}),
            ("store_into", {"key": "a", "kind": "text", "tier": "warm"}),
            (
                "store_with_options",
                {"key": "a", "kind": "float", "tier": "cold", "options": {"copy": False}},
            ),
        ],
    ),
    "a store that only cold has room for over one that waits": (
        OPTIONS | {"sizes": "tiny"},
        [
            ("delete", {"key": "b"}),
            ("store_into", {"key": "b", "kind": "dict", "tier": "warm"}),
            ("store", {"key": "b", "kind": "large array"}),
        ],
    ),
    "many stores into cold over one that waits": (
        OPTIONS,
        [("store_many", {"some": {"a"}, "kind": "none", "tier": "cold"})],
    ),
    "many stores into cold after a removal that waits": (
        OPTIONS,
        [
            ("compare", {}),
            ("delete", {"key": "a"}),
            ("store_many", {"some": {"a"}, "kind": "none", "tier": "cold"}),
        ],
    ),
    # The policy forgot an entry, and learnt then of those that had come before.
    "new terms of an entry while others wait": (
        OPTIONS | {"sizes": "no hot", "policy": "s3fifo", "on_full": "evict"},
        [("pin", {"key": "a", "pinned": False})],
    ),
    # Each way remembered the time of a store for ten milliseconds, from another moment on.
    "two stores ten milliseconds apart": (
        OPTIONS | {"sizes": "no hot", "policy": "sieve"},
        [
            ("wait", {"seconds": 0.005}),
            ("store", {"key": "low/k", "kind": "float"}),
            ("delete", {"key": "a"}),
            ("wait", {"seconds": 0.005}),
            ("store", {"key": "a", "kind": "none"}),
        ],
    ),
    # The migrator asked for room when a value was read, and what had been removed still took it.
    "a read of cold after a removal that waits": (
        OPTIONS | {"sizes": "tiny"},
        [
            ("clear", {}),
            ("store_into", {"key": "a", "kind": "1 KB array", "tier": "warm"}),
            ("store_into", {"key": "b", "kind": "1 KB array", "tier": "warm"}),
            ("store_into", {"key": "c/d", "kind": "1 KB", "tier": "cold"}),
            ("compare", {}),
            ("delete", {"key": "a"}),
            ("retrieve", {"key": "c/d", "times": 1}),
            ("tick", {"seconds": 1.0, "times": 1}),
        ],
    ),
    # A value that the policy had not been shown was replaced, and the ghost of its key was left.
    "a store over a value that came back and was flushed": (
        OPTIONS | {"sizes": "tiny"},
        [
            ("promote", {"key": "pinned/k"}),
            ("departures", {"tier": "hot"}),
            ("store_into", {"key": "pinned/k", "kind": "large int", "tier": "hot"}),
            ("flush", {}),
            ("store", {"key": "pinned/k", "kind": "bytearray"}),
            ("store", {"key": "low/k", "kind": "bytes"}),
        ],
    ),
    # The policy was shown all that had come, and then what had left in between.
    "a store after others were replaced": (
        OPTIONS | {"sizes": "small", "policy": "s3fifo", "on_full": "evict"},
        [
            ("pin", {"key": "brief/k", "pinned": True}),
            ("departures", {"tier": "hot"}),
            ("store", {"key": "full/k", "kind": "large array"}),
            ("store", {"key": "b", "kind": "nested"}),
            ("store", {"key": "x" * 200, "kind": "nested"}),
            ("store_into", {"key": "x" * 200, "kind": "bytes", "tier": "warm"}),
            ("store_into", {"key": "a", "kind": "nested", "tier": "warm"}),
        ],
    ),
    # Reads were shown to the migrator before the next store, or after it.
    "a store after reads of cold": (
        OPTIONS | {"sizes": "tiny", "rules": True, "policy": "gdsf", "on_full": "evict"},
        [
            ("store", {"key": "brief/k", "kind": "1 KB array"}),
            ("store", {"key": "b", "kind": "bytearray"}),
            ("store", {"key": "c/d", "kind": "bytes"}),
            ("delete", {"key": "b"}),
            ("items", {}),
            ("delete", {"key": "a"}),
            ("store_into", {"key": "b", "kind": "array", "tier": "warm"}),
            ("tick", {"seconds": 1.0, "times": 1}),
        ],
    ),
    # The order of eviction followed from hits of the front cache, which are estimates.
    "hits of the front cache": (
        OPTIONS | {"policy": "mq", "rules": True},
        [
            ("retrieve", {"key": "b", "times": 6}),
            ("retrieve", {"key": "b", "times": 6}),
            ("store", {"key": "a", "kind": "float"}),
            ("retrieve", {"key": "c/d", "times": 6}),
        ],
    ),
}


@pytest.mark.parametrize("name", DIFFERED)
def test_both_ways_of_a_change_where_they_once_differed(name: str) -> None:
    """No caller sees which way a change takes."""
    play(*DIFFERED[name])


@pytest.mark.parametrize("number", range(HISTORIES))
def test_both_ways_of_a_change(number: int) -> None:
    """Answers, tiers, counters, budgets, events of each key and the order of eviction agree."""
    play(*history(number, LENGTH))
