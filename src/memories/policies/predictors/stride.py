"""Stride: after `frame/10` and `frame/12` comes `frame/14`.

Only the last number of a key counts. Keys that differ in nothing else are a family; a family has up
to eight interleaved runs, and a key belongs to the run whose last number is nearest.
"""

from __future__ import annotations

from collections.abc import Hashable
from sys import getsizeof
from typing import ClassVar

from memories.foundation.bounded_dict import BoundedDict
from memories.policies.predictors.base import Predictor
from memories.policies.predictors.key_numbers import KeyNumbers, split_key

_SURE = 3
_RUNS = 8  # Runs remembered in each family.
_REACH = 64  # A step longer than this starts a new run.


class _Run:
    __slots__ = ("count", "last", "step")

    def __init__(self, last: int) -> None:
        self.last = last
        self.step = 0
        self.count = 0

    def extend(self, value: int) -> None:
        """Append `value` to this run."""
        step = value - self.last
        self.count = min(self.count + 1, _SURE) if step == self.step else 0
        self.last, self.step = value, step


class StridePredictor(Predictor):
    """Follows runs of evenly spaced numbers in up to `remembered_families` families."""

    name: ClassVar[str] = "stride"

    def __init__(self, *, remembered_families: int = 4096) -> None:
        super().__init__()
        self._families: BoundedDict[tuple[str, ...], list[_Run]] = BoundedDict(
            remembered_families, _family_bytes
        )

    def observe(self, key: str, now: float) -> None:
        """Extend the nearest run of the key's family, or start a new run."""
        del now
        numbers = split_key(key)
        if not numbers.digits:
            return
        family = _family(numbers)
        runs = self._families.get(family) or []
        self._families.set(family, runs)
        value = int(numbers.digits[-1])
        run = _nearest(runs, value)
        if run is None:
            run = _Run(value)
            del runs[: -(_RUNS - 1)]
        else:
            runs.remove(run)
            if value != run.last:
                run.extend(value)
        runs.append(run)

    def candidates(self, key: str) -> list[tuple[str, Hashable]]:
        """Return the next key of the run that ends with `key`."""
        numbers = split_key(key)
        if not numbers.digits:
            return []
        value = int(numbers.digits[-1])
        for run in self._families.get(_family(numbers)) or ():
            if run.last == value and run.step and run.count:
                other = numbers.neighbour(-1 % len(numbers.digits), run.step)
                return [] if other is None else [(other, run.count)]
        return []


def _family(numbers: KeyNumbers) -> tuple[str, ...]:
    return (*numbers.texts, *numbers.digits[:-1])


def _family_bytes(family: tuple[str, ...], runs: list[_Run]) -> int:
    del runs
    return sum(map(getsizeof, family))


def _nearest(runs: list[_Run], value: int) -> _Run | None:
    """Return the run that expects `value`, else the one whose last number is nearest to it."""
    near = [run for run in runs if abs(value - run.last) <= _REACH]
    if not near:
        return None
    return min(near, key=lambda run: (run.last + run.step != value, abs(value - run.last)))
