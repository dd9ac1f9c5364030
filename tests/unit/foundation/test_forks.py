"""Actions in a forked child: for the objects that are there, in the order of registration."""

from __future__ import annotations

import os
import weakref

from memories.foundation.forks import after_fork


class Part:
    """Something that a child changes."""

    log: list[str] = []

    def __init__(self, name: str) -> None:
        self.name = name

    def first(self) -> None:
        self.log.append(f"first {self.name}")

    def second(self) -> None:
        self.log.append(f"second {self.name}")


def test_a_child_runs_the_actions_in_order_and_its_parent_none() -> None:
    """Locks are freed before anything that takes them; an object that is gone is left out."""
    parts: weakref.WeakSet[Part] = weakref.WeakSet()
    after_fork(parts, Part.first)
    after_fork(parts, Part.second)
    kept = Part("kept")
    parts.add(kept)
    parts.add(Part("gone"))
    child = os.fork()
    if child == 0:
        os._exit(0 if Part.log == ["first kept", "second kept"] else 1)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert [] == Part.log
