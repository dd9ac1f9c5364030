"""Nodes behind a far or slow network, and behind a firewall that forgets connections."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from tests.support.nodes.proxy import Faults, NodeProxy
from tests.support.waiting import until

from memories import DistributedMemoryManager
from memories.cluster.client import pool
from memories.cluster.local import LocalGroup
from memories.errors import MemoriesError

pytestmark = pytest.mark.server
SLACK_SECONDS = 60.0  # Of a busy machine.


@pytest.fixture
def proxies(plain_nodes: LocalGroup, in_front: Callable[..., NodeProxy]) -> list[NodeProxy]:
    """A proxy in front of each of three servers."""
    return [in_front(server.port) for server in plain_nodes.servers]


@contextmanager
def opened(proxies: list[NodeProxy], **options: Any) -> Iterator[DistributedMemoryManager]:
    """Open a manager that reaches its nodes through the proxies."""
    nodes = [proxy.name for proxy in proxies]
    with DistributedMemoryManager(
        "5MB",
        "100MB",
        "100MB",
        nodes=nodes,
        near_cache=False,
        migration=False,
        prefetch="off",
        **options,
    ) as manager:
        yield manager


def take_longer(proxies: list[NodeProxy], **faults: float) -> None:
    """Make the network of every node far or slow."""
    for proxy in proxies:
        proxy.faults = Faults(**faults)  # type: ignore[arg-type]


def calm(attempt: Callable[[], bool]) -> bool:
    """Return whether an attempt succeeds that no stall of the machine has disturbed."""
    try:
        return attempt()
    except MemoriesError:
        return False


@pytest.mark.usual_limits
def test_a_store_takes_two_rounds_and_never_connects_again(proxies: list[NodeProxy]) -> None:
    """At 90 ms of round trip, a limit for nodes nearby would close every connection."""
    take_longer(proxies, latency_seconds=0.045)
    with opened(proxies) as manager:
        manager.store_distributed("first", 0)

        def attempt() -> bool:
            connections = sum(proxy.connections for proxy in proxies)
            spent: list[float] = []
            for number in range(10):
                began = time.monotonic()
                manager.store_distributed(f"key{number}", number)
                spent.append(time.monotonic() - began)
                assert number == manager.retrieve_distributed(f"key{number}")
            online = all(state["online"] for state in manager.get_node_status().values())
            # The check of all nodes, every two seconds, has a connection of its own.
            opened = sum(proxy.connections for proxy in proxies) - connections
            return online and opened <= 2 * len(proxies) and min(spent) < 3 * 0.09

        until(lambda: calm(attempt))


@pytest.mark.usual_limits
def test_a_manager_asks_all_nodes_at_once_when_it_opens(proxies: list[NodeProxy]) -> None:
    """One node after the other, with several questions each, took ten round trips."""
    with opened(proxies) as manager:
        manager.store_distributed("before", 1)
    take_longer(proxies, latency_seconds=0.1)

    def attempt() -> bool:
        began = time.monotonic()
        with opened(proxies) as manager:
            spent = time.monotonic() - began
            assert 1 == manager.retrieve_distributed("before")
        return spent < 5 * 0.2

    until(lambda: calm(attempt))


@pytest.mark.torture
@pytest.mark.usual_limits
def test_everything_works_over_a_satellite(proxies: list[NodeProxy]) -> None:
    """At 600 ms a manager opens, stores, reads and deletes; a far node is not a dead one."""
    with opened(proxies) as manager:
        manager.store_distributed("before", 1)
    take_longer(proxies, latency_seconds=0.3)
    with opened(proxies) as manager:
        assert 1 == manager.retrieve_distributed("before")
        manager.store_distributed("key", np.arange(5000))
        assert 4999 == manager.retrieve_distributed("key")[-1]
        manager.delete_distributed("key")
        assert manager.retrieve_distributed("key", None) is None


@pytest.mark.usual_limits
def test_a_network_that_becomes_slow_is_followed(proxies: list[NodeProxy]) -> None:
    """The limits are measured, not chosen once."""
    with opened(proxies) as manager:
        manager.store_distributed("key", 1)
        take_longer(proxies, latency_seconds=0.15)

        def attempt() -> bool:
            manager.store_distributed("key", "last")
            return bool("last" == manager.retrieve_distributed("key"))

        until(lambda: calm(attempt))


@pytest.mark.usual_limits
def test_a_slow_network_carries_a_large_value(proxies: list[NodeProxy]) -> None:
    """2 MB/s to each node: a value takes longer than a small answer may, and arrives."""
    value = np.random.default_rng(1).integers(0, 255, 3_000_000, np.uint8)
    with opened(proxies) as manager:
        take_longer(proxies, bytes_per_second=2e6)
        manager.store_distributed("large", value)
        assert np.array_equal(value, manager.retrieve_distributed("large"))


@pytest.mark.torture
@pytest.mark.usual_limits
def test_a_cluster_is_begun_over_a_satellite(proxies: list[NodeProxy]) -> None:
    """The first manager of all has more to say to each node."""
    take_longer(proxies, latency_seconds=0.3)
    with opened(proxies) as manager:
        values = {f"many{number}": number for number in range(50)}
        manager.store_many_distributed(values)
        assert values == manager.retrieve_many_distributed(values)


@pytest.mark.torture
@pytest.mark.usual_limits
def test_a_slow_network_carries_forty_megabytes(proxies: list[NodeProxy]) -> None:
    """The same with more, and slower."""
    value = np.random.default_rng(1).integers(0, 255, 40_000_000, np.uint8)
    with opened(proxies) as manager:
        take_longer(proxies, bytes_per_second=2e6, latency_seconds=0.05)
        manager.store_distributed("large", value)
        assert np.array_equal(value, manager.retrieve_distributed("large"))


def test_forgotten_connections_cost_at_most_a_moment(
    proxies: list[NodeProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A firewall drops what comes on connections that were idle, and sends no error."""
    monkeypatch.setattr(pool, "CHECKED_SECONDS", 0.2)
    with opened(proxies) as manager:
        threads = 16
        start, values = threading.Barrier(threads), {f"key{one}": one for one in range(threads)}
        manager.store_many_distributed(values)
        errors: list[Exception] = []
        longest = [0.0] * threads

        def work(number: int) -> None:
            for _ in range(2):
                start.wait(30)
                began = time.monotonic()
                try:
                    manager.store_distributed(f"key{number}", number)
                    assert number == manager.retrieve_distributed(f"key{number}")
                except Exception as error:
                    errors.append(error)
                longest[number] = time.monotonic() - began
                start.wait(30)
                if number == 0:
                    for proxy in proxies:
                        proxy.forget()
                    time.sleep(0.5)

        workers = [threading.Thread(target=work, args=(one,)) for one in range(threads)]
        for one in workers:
            one.start()
        for one in workers:
            one.join()
        assert [] == errors
        assert max(longest) < 1.0 + SLACK_SECONDS


@pytest.mark.usual_limits
def test_connections_forgotten_while_in_use_cost_one_limit(proxies: list[NodeProxy]) -> None:
    """Those that were not idle for long enough to be checked are found out by their silence."""
    with opened(proxies) as manager:
        manager.store_distributed("key", 1)
        for proxy in proxies:
            proxy.forget()

        def attempt() -> bool:
            manager.store_distributed("key", 2)
            return bool(2 == manager.retrieve_distributed("key"))

        until(lambda: calm(attempt))


def test_a_limit_of_the_user_holds(proxies: list[NodeProxy]) -> None:
    """`timeout` is the longest that any node may take to answer."""
    with opened(proxies, node_options={"timeout": 0.3}) as manager:
        take_longer(proxies, latency_seconds=2.0)
        began = time.monotonic()
        with pytest.raises(MemoriesError):
            manager.retrieve_distributed("key")
        assert time.monotonic() - began < 1.5 + SLACK_SECONDS
