"""What the decoding of one value may take: bytes, steps and depth, in proportion to what is stored.

The caller of a decoder grants an allowance, and everything that is called for it draws on the same
one. What is stored as a few bytes and becomes many (a column of nulls, one array in a thousand
columns) is charged before it is made.
"""

from __future__ import annotations

import threading
import weakref
from types import TracebackType
from typing import Final

from memories.codecs.base import Parts
from memories.errors import CorruptDataError

# No value that this package stores comes near to these: a list of small numbers takes eight times
# its stored bytes, and a dict of short texts up to sixty times.
FREE_NBYTES: Final = 256 << 20
NBYTES_PER_BYTE: Final = 64
FREE_STEPS: Final = 5_000_000  # About a second.
STEPS_PER_BYTE: Final = 8
MAX_DEPTH: Final = 200  # Values of codecs within values of codecs.


class _Local(threading.local):
    # Weak: an interrupt between the lines of `__enter__` or `__exit__` leaves it set, and an
    # allowance that was never taken back must not be drawn on by all that the thread decodes later.
    allowance: weakref.ref[Allowance] | None = None


_local = _Local()


def _granted() -> Allowance | None:
    """Return the allowance that this thread draws on now."""
    found = _local.allowance
    return None if found is None else found()


class Allowance:
    """Grants what the parts of a value may take while it is decoded, as a context.

    Within another one it grants nothing of its own.
    """

    __slots__ = ("__weakref__", "_depth", "_outer", "_parts", "nbytes", "steps")

    def __init__(self, parts: Parts) -> None:
        self._outer = _granted()
        self._depth = 0
        self._parts: Parts | None = parts
        self.nbytes, self.steps = FREE_NBYTES, FREE_STEPS

    def extend(self) -> None:
        """Add what is in proportion to the size of the parts, once: few values need it."""
        parts, self._parts = self._parts, None
        if parts is not None:
            stored = parts.nbytes + _nbytes_of(parts.meta)
            self.nbytes += NBYTES_PER_BYTE * stored
            self.steps += STEPS_PER_BYTE * stored

    def __enter__(self) -> None:
        # It does not refer to itself, so that it dies with its block.
        root = self._outer or self
        root._depth += 1
        if root._depth > MAX_DEPTH:
            root._depth -= 1
            raise CorruptDataError(f"a stored value is nested in more than {MAX_DEPTH} levels")
        if self._outer is None:
            _local.allowance = weakref.ref(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        (self._outer or self)._depth -= 1
        if self._outer is None:
            _local.allowance = None


def spend(nbytes: int, what: str) -> None:
    """Charge bytes before they are allocated.

    Raises:
        CorruptDataError: they are out of proportion to what is stored; the message names `what`.
    """
    allowance, left = _granted(), FREE_NBYTES - nbytes
    if allowance is not None:
        allowance.nbytes -= nbytes
        if allowance.nbytes < 0:
            allowance.extend()
        left = allowance.nbytes
    if left < 0 or nbytes < 0:
        raise CorruptDataError(
            f"{what} would take {nbytes} bytes, out of proportion to what is stored"
        )


def spend_steps(steps: int, what: str) -> None:
    """Charge steps of work, of which each takes about 0.2 us.

    Raises:
        CorruptDataError: they are out of proportion to what is stored; the message names `what`.
    """
    allowance, left = _granted(), FREE_STEPS - steps
    if allowance is not None:
        allowance.steps -= steps
        if allowance.steps < 0:
            allowance.extend()
        left = allowance.steps
    if left < 0:
        raise CorruptDataError(f"{what} would take {steps} steps, out of proportion to its size")


def _nbytes_of(meta: object) -> int:
    """Return about how many bytes a description takes, and never less than half of them."""
    total, todo = 0, [meta]
    while todo:
        item = todo.pop()
        if isinstance(item, str | bytes):
            total += 2 * len(item)
        elif isinstance(item, dict):
            todo.extend(item.values())
            todo.extend(item.keys())
        elif isinstance(item, list):
            todo.extend(item)
        total += 2
    return total
