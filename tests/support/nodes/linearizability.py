"""Checks whether a single register could have given a history of reads and writes of one key.

The search of Wing and Gong ("Testing and verifying concurrent objects", 1993) with the memory of
Lowe ("Testing for linearizability", 2017): try every operation that began before any other had
ended as the next one, and never twice from the same set of done operations and the same value.

An operation without an answer, or whose error leaves it in doubt, may have happened at any time
after it began, or never: it ends at infinity and may be left out.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

ABSENT = "<absent>"
_numbers = itertools.count()


@dataclass(frozen=True)
class Operation:
    """One call on the key, by one client: a write of `value`, or a read that gave `value`.

    A deletion writes ABSENT, a read that finds nothing gives ABSENT. `ended` is infinite where the
    outcome is unknown; a read of unknown outcome proves nothing and need not be recorded.
    """

    kind: Literal["write", "read"]
    value: Any
    began: float
    ended: float
    client: str = ""
    number: int = field(default_factory=lambda: next(_numbers), compare=False)

    @property
    def in_doubt(self) -> bool:
        """Return whether it may never have happened."""
        return math.isinf(self.ended)


class NotLinearizableError(AssertionError):
    """No order of the operations explains what was read."""


class TooHardError(Exception):
    """The history is too concurrent to be judged within the limit of steps."""


def check(history: Iterable[Operation], *, initial: Any = ABSENT, steps: int = 2_000_000) -> None:
    """Return if the operations on one key can be put into an order that explains every read.

    The order keeps real time: what ended before another began comes first.

    Raises:
        NotLinearizableError: there is no such order; the message shows where the search got to.
        TooHardError: it took more than `steps`.
    """
    operations = sorted(history, key=lambda one: one.began)
    seen = {one.value for one in operations if one.kind == "read"}
    # A write that is in doubt and was never read makes no difference, whether it happened or not.
    telling = [one for one in operations if not one.in_doubt or one.value in seen]
    pieces = _independent(telling)
    values = {initial}
    for piece in pieces:
        values = _final_values(piece, values, steps)


def _independent(history: Sequence[Operation]) -> list[list[Operation]]:
    """Cut the history at moments when nothing was under way; each piece is judged by itself."""
    pieces: list[list[Operation]] = []
    latest = -math.inf
    for operation in history:
        if operation.began > latest or not pieces:
            pieces.append([])
        pieces[-1].append(operation)
        latest = max(latest, operation.ended)
    return pieces


def _final_values(piece: list[Operation], initial: set[Any], limit: int) -> set[Any]:
    """Return every value the register may have after the piece, from any it may have before.

    A state of the search is the set of operations that have been placed, as bits, and the value.
    """
    must = sum(1 << at for at, one in enumerate(piece) if not one.in_doubt)
    stack = [(0, value) for value in initial]
    seen = set(stack)
    final: set[Any] = set()
    furthest = 0
    for _ in range(limit):
        if not stack:
            break
        done, value = stack.pop()
        furthest = max(furthest, (done & must).bit_count())
        if done & must == must:
            final.add(value)
        for state in _next_states(piece, done, value):
            if state not in seen:
                seen.add(state)
                stack.append(state)
    else:
        raise TooHardError(f"{len(piece)} operations are under way at once")
    if not final:
        raise NotLinearizableError(_explained(piece, initial, furthest))
    return final


def _next_states(piece: list[Operation], done: int, value: Any) -> list[tuple[int, Any]]:
    """Return where one more operation leads: one that nothing which is not done ended before."""
    waiting: list[int] = []
    first_end = math.inf
    lowest = (~done & (done + 1)).bit_length() - 1
    for at in range(lowest, len(piece)):
        if piece[at].began > first_end:
            break  # They are in the order of their beginnings.
        if not done >> at & 1:
            waiting.append(at)
            first_end = min(first_end, piece[at].ended)
    states = []
    for at in waiting:
        operation = piece[at]
        if operation.began > first_end:
            continue
        if operation.kind == "write":
            states.append((done | 1 << at, operation.value))
        elif operation.value == value:
            return [(done | 1 << at, value)]  # A read that fits changes nothing: take it now.
    return states


def _explained(piece: list[Operation], initial: set[Any], furthest: int) -> str:
    zero = piece[0].began
    lines = [
        f"  {(one.began - zero) * 1e3:9.2f} .. "
        f"{'  in doubt' if one.in_doubt else f'{(one.ended - zero) * 1e3:7.2f} ms'}"
        f"  {one.client:>4}  {one.kind:5} {one.value!r}"
        for one in piece[:60]
    ]
    return (
        f"no order of these {len(piece)} operations, from {initial}, explains the reads; "
        f"at most {furthest} can be placed:\n" + "\n".join(lines)
    )


class Recorder:
    """Writes down the operations of many threads on one key.

    Args:
        doubtful: The errors after which a write may or may not have happened. A read that ends in
            one of them proves nothing. Every other error is raised to the caller.
        absent: The errors of a read that mean the key is absent.
    """

    def __init__(
        self,
        doubtful: tuple[type[Exception], ...],
        absent: tuple[type[Exception], ...] = (KeyError,),
    ) -> None:
        self._doubtful = doubtful
        self._absent = absent
        self._lock = threading.Lock()
        self.history: list[Operation] = []
        self.failed = 0
        self.longest_seconds = 0.0

    def write(self, value: Any, act: Callable[[], object], client: str = "") -> bool:
        """Carry out a write of `value`, and return whether it was acknowledged."""
        began = time.monotonic()
        try:
            act()
        except self._doubtful:
            self._note(Operation("write", value, began, math.inf, client))
            return False
        self._note(Operation("write", value, began, time.monotonic(), client))
        return True

    def read(self, act: Callable[[], Any], client: str = "") -> bool:
        """Run a read, and return whether it had an outcome."""
        began = time.monotonic()
        try:
            value = act()
        except self._absent:
            value = ABSENT
        except self._doubtful:
            self._timed(began)
            self.failed += 1
            return False
        self._note(Operation("read", value, began, time.monotonic(), client))
        return True

    def check(self, *, initial: Any = ABSENT) -> None:
        """Judge what was recorded, as `check` does."""
        check(self.history, initial=initial)

    def _note(self, operation: Operation) -> None:
        self._timed(operation.began)
        with self._lock:
            self.history.append(operation)
            self.failed += operation.in_doubt

    def _timed(self, began: float) -> None:
        with self._lock:
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)
