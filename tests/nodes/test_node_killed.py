"""The bar of the issue: a node dies, or hangs, in the middle of 1,000 stores and 10,000 reads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from tests.nodes.test_replicas import LONGEST_SECONDS, manager_of

from memories.cluster.local import LocalGroup

pytestmark = pytest.mark.server
KEYS = 100


@pytest.mark.parametrize(
    ("fault", "stores", "reads"), [("kill", 1000, 10_000), ("pause", 200, 2000)]
)
def test_nothing_is_lost_or_wrong_when_a_node_fails_during_a_call(
    plain_nodes: LocalGroup, fault: str, stores: int, reads: int
) -> None:
    """0 lost, 0 wrong, and no single call longer than two seconds."""
    victim = plain_nodes.servers[0]
    with manager_of(plain_nodes.names) as manager:
        acknowledged = {f"key {number}": 0 for number in range(KEYS)}
        manager.store_many_distributed(acknowledged)
        longest, wrong = 0.0, []

        def timed(act: Callable[[], Any]) -> Any:
            nonlocal longest
            began = time.monotonic()
            result = act()
            longest = max(longest, time.monotonic() - began)
            return result

        def write() -> None:
            for number in range(1, stores + 1):
                key = f"key {number % KEYS}"
                timed(partial(manager.store_distributed, key, number))
                acknowledged[key] = number
                if number == stores // 3:
                    getattr(victim, fault)()

        writer = threading.Thread(target=write)
        writer.start()
        for number in range(reads):
            key = f"key {number % KEYS}"
            least = acknowledged[key]
            value = timed(partial(manager.retrieve_distributed, key))
            if value < least:
                wrong.append((key, value, least))
        writer.join()
        try:
            assert [] == wrong
            assert acknowledged == manager.retrieve_many_distributed(acknowledged)
            assert longest < LONGEST_SECONDS
        finally:
            if fault == "pause":
                victim.resume()
