"""When a node counts as failing, by what its callers record."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from memories.cluster.client.address import NodeAddress
from memories.cluster.client.node import Node


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        """Return the seconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def node(clock: Clock) -> Iterator[Node]:
    """A node without connections."""
    one = Node(NodeAddress.parse("127.0.0.1:1"), monotonic=clock.monotonic)
    yield one
    one.close()


def test_threads_that_wait_for_one_stall_do_not_make_a_node_fail(node: Node, clock: Clock) -> None:
    """A server that stalls for a tenth of a second was skipped for a quarter, with two threads."""
    patience = node.latency.probe_seconds
    for _ in range(16):
        clock.now += 0.001
        node.record_timeout(99.92)
    assert node.usable
    assert node.latency.probe_seconds <= 2 * patience  # It was one timeout.


def test_a_request_after_a_timeout_decides_whether_a_node_hangs(node: Node, clock: Clock) -> None:
    """It was sent when the first caller had given up: its node had time enough to answer both."""
    node.record_timeout(99.92)
    asked, clock.now = clock.now, 100.08
    node.record_timeout(asked)
    assert not node.usable
    assert "does not answer in time" in node.last_error


def test_an_answer_makes_the_count_begin_anew(node: Node, clock: Clock) -> None:
    """Timeouts with answers between them are those of a slow node, whose latency is measured."""
    for _ in range(3):
        node.record_timeout(clock.now)
        clock.now += 1
        node.record_success(0.1)
    assert node.usable
