"""What a process does to its objects before a fork, and a forked child to those that it inherits.

A hook of `os.register_at_fork` cannot be removed again, so one registered by an instance would live
until the process ends. Each module registers one action for all of its instances when it is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def before_fork(objects: Iterable[T], action: Callable[[T], object]) -> None:
    """Call `action` in the process that forks, for each of the `objects` that there are then.

    Call this once a module, when it is loaded.
    """

    def in_parent() -> None:
        for one in list(objects):
            action(one)

    os.register_at_fork(before=in_parent)


def after_fork(objects: Iterable[T], action: Callable[[T], object]) -> None:
    """Call `action` in every forked child, for each of the `objects` that there are then.

    Call this once a module, when it is loaded; `objects` is usually a `WeakSet`. The actions run in
    the order of the calls, which is that of the imports: a module can rely on what those below it
    have done, first of all on free locks.
    """

    def in_child() -> None:
        for one in list(objects):
            action(one)

    os.register_at_fork(after_in_child=in_child)
