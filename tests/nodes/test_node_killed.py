"""The bar of the issue: a node dies, or hangs, in the middle of 1,000 stores and 10,000 reads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from tests.nodes.test_replicas import LONGEST_SECONDS, manager_of

from memories import UnavailableError
from memories.cluster.local import LocalGroup

pytestmark = pytest.mark.server
KEYS = 100
PATIENT_SECONDS = 60.0  # For a call that is made again, against hanging only.


@pytest.mark.parametrize(
    ("fault", "stores", "reads"), [("kill", 1000, 10_000), ("pause", 200, 2000)]
)
def test_nothing_is_lost_or_wrong_when_a_node_fails_during_a_call(
    plain_nodes: LocalGroup, fault: str, stores: int, reads: int
) -> None:
    """0 lost, 0 wrong, and no single call takes long.

    On a busy machine a living node may be slower than one that hangs is waited for. Then two of
    three seem to fail, and calls are refused for a moment: they are made again, like any program
    does, and must be few.
    """
    victim = plain_nodes.servers[0]
    with manager_of(plain_nodes.names) as manager:
        acknowledged = {f"key {number}": 0 for number in range(KEYS)}
        manager.store_many_distributed(acknowledged)
        longest, wrong, refused = 0.0, [], 0

        def timed(act: Callable[[], Any]) -> Any:
            nonlocal longest, refused
            end = time.monotonic() + PATIENT_SECONDS
            while True:
                began = time.monotonic()
                try:
                    return act()
                except UnavailableError:
                    refused += 1
                    if time.monotonic() > end:
                        raise
                finally:
                    longest = max(longest, time.monotonic() - began)
                time.sleep(0.1)

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
            assert acknowledged == timed(partial(manager.retrieve_many_distributed, acknowledged))
            assert longest < LONGEST_SECONDS
            assert refused < (stores + reads) / 50
        finally:
            if fault == "pause":
                victim.resume()
