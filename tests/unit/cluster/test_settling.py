"""The registers that a manager knows are to vanish."""

from __future__ import annotations

from collections.abc import Mapping

from memories.cluster.settling import Settling
from memories.cluster.versions import RegisterVersion

NOW = 2_000_000_000.0
VERSION = RegisterVersion(7, 3)


class Nodes:
    """Settles all but the names that it lacks nodes for, at a time that a test sets."""

    def __init__(self) -> None:
        self.asked: list[dict[bytes, RegisterVersion]] = []
        self.lacking: set[bytes] = set()
        self.now = NOW
        self.settling = Settling(self.settle, lambda: self.now, lambda: self.now)

    def settle(self, ended: Mapping[bytes, RegisterVersion]) -> set[bytes]:
        self.asked.append(dict(ended))
        return ended.keys() - self.lacking


def test_a_tombstone_is_settled_once() -> None:
    """Then nothing is left to do, and nothing is held in memory."""
    nodes = Nodes()
    nodes.settling.deleted(b"one", VERSION)
    assert nodes.settling.due
    nodes.settling.run()
    assert [{b"one": VERSION}] == nodes.asked
    assert 0 == len(nodes.settling)
    assert not nodes.settling.due


def test_what_cannot_be_settled_is_tried_again_later() -> None:
    """A node is down: the tombstone stays, and nothing is asked in a busy loop."""
    nodes = Nodes()
    nodes.lacking = {b"one"}
    nodes.settling.deleted(b"one", VERSION)
    nodes.settling.deleted(b"two", VERSION)
    nodes.settling.run()
    assert 1 == len(nodes.settling) == len(nodes.asked)
    assert not nodes.settling.due
    nodes.now += 60
    assert nodes.settling.due
    nodes.lacking = set()
    nodes.settling.run()
    assert {b"one": VERSION} == nodes.asked[-1]
    assert 0 == len(nodes.settling)


def test_a_value_gets_its_tombstone_when_it_has_expired() -> None:
    """With a version above its own, and below that of any value that is stored later."""
    nodes = Nodes()
    nodes.settling.expires(b"one", VERSION, int((NOW + 10) * 1000))
    nodes.settling.run()
    assert [] == nodes.asked
    nodes.now += 11
    nodes.settling.run()
    (ended,) = nodes.asked
    assert VERSION < ended[b"one"] < RegisterVersion(8, 0)


def test_what_was_added_meanwhile_is_not_forgotten() -> None:
    """Thread 1 settles a tombstone. Thread 2 stores and deletes the key again."""
    nodes = Nodes()
    newer = RegisterVersion(9, 3)

    def settle(ended: Mapping[bytes, RegisterVersion]) -> set[bytes]:
        nodes.asked.append(dict(ended))
        if len(nodes.asked) == 1:
            nodes.settling.deleted(b"one", newer)
        return set(ended)

    nodes.settling = Settling(settle, lambda: nodes.now, lambda: nodes.now)
    nodes.settling.deleted(b"one", VERSION)
    nodes.settling.run()
    assert [{b"one": VERSION}, {b"one": newer}] == nodes.asked
