"""The numbers of a queue in a cache: which ends it has, and which number is free."""

from __future__ import annotations

import re
from typing import Any, Final

from memories.errors import InvalidOptionError
from memories.integrations.diskcache.items import Items
from memories.integrations.diskcache.keys import name_of

FIRST_NUMBER = 500_000_000_000_000  # As in diskcache, so that keys are the same.
SIDES = ("front", "back")
_REACH: Final = 100_000_000_000_000  # A number as near to the first one is that of a queue.
_NUMBERED: Final = re.compile(r"(.*)-([0-9]{15})", re.DOTALL)


class Queue:
    """The ends of a queue, read from the store. The caller holds the lock of the items.

    An item is stored before the ends are, and removed before they are: after a kill the ends are
    at most one behind, which `free` and the caller of `end` notice.
    """

    def __init__(self, items: Items, prefix: str | None) -> None:
        self._items = items
        self._prefix = prefix
        self._state = items.own()
        self._ends: list[int] | None = self._state.get(self._name)
        self._changed = False

    @property
    def _name(self) -> str:
        return "" if self._prefix is None else f"-{self._prefix}"

    def key(self, number: int) -> Any:
        """Return the key of a number."""
        return number if self._prefix is None else f"{self._prefix}-{number:015}"

    def end(self, side: str) -> int | None:
        """Return the number at an end; None if the queue is empty."""
        place = _place(side)
        return None if self._ends is None else self._ends[place]

    def free(self, side: str) -> int:
        """Return the next number behind an end."""
        place = _place(side)
        step = 1 if place else -1
        number = FIRST_NUMBER if self._ends is None else self._ends[place] + step
        while self._items.manager.exists(name_of(self.key(number))[0]):
            number += step
        return number

    def include(self, number: int) -> None:
        """Let the queue reach to a number, and keep its ends."""
        front, back = self._ends or (number, number)
        self._ends = [min(front, number), max(back, number)]
        self._changed = True
        self.keep()

    def leave_out(self, side: str) -> None:
        """Leave the number at an end out."""
        if self._ends is not None:
            self._ends = [self._ends[0] + (side == "front"), self._ends[1] - (side == "back")]
            if self._ends[0] > self._ends[1]:
                self._ends = None
            self._changed = True

    def keep(self) -> None:
        """Keep the ends if they have changed."""
        if not self._changed:
            return
        if self._ends is None:
            self._state.pop(self._name, None)
        else:
            self._state[self._name] = self._ends
        self._items.set_own(self._state)
        self._changed = False


def place_of(key: Any) -> tuple[str | None, int] | None:
    """Return the name of the queue and the number in it that a key of diskcache stands for.

    None is returned for all other keys, such as small numbers.
    """
    prefix: str | None = None
    number = key
    if isinstance(key, str) and (numbered := _NUMBERED.fullmatch(key)):
        prefix, number = numbered[1], int(numbered[2])
    if type(number) is not int or abs(number - FIRST_NUMBER) > _REACH:
        return None
    return prefix, number


def _place(side: str) -> int:
    if side not in SIDES:
        raise InvalidOptionError(f"side={side!r:.40} must be 'front' or 'back'")
    return SIDES.index(side)
