"""Puts the box that a read selects together from decoded chunks, in the thread that reads.

The pipelines of zarr run in one event loop for all threads of a process, and describe each chunk
anew. A box whose chunks are all in RAM needs neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

FULL = slice(None)
# Returns a decoded chunk: of these coordinates in the grid of chunks, from this place in the chunk
# on. None if it is not kept.
Find = Callable[[tuple[int, ...], tuple[int, ...]], Any]
_Cell = tuple[int, int, Any, Any]  # Of a chunk along one axis: see `SelectedBox._cells`.


class SelectedBox(NamedTuple):
    """What a selection of ints and slices selects.

    Attributes:
        bounds: For each axis where the box begins, and where it ends.
        kept: For each axis whether the result has it, too: an int selects no axis.
    """

    bounds: Sequence[tuple[int, int]]
    kept: Sequence[bool]

    @classmethod
    def of(cls, selection: Any, shape: tuple[int, ...]) -> SelectedBox | None:
        """Return the box of a selection; None if it is empty, has steps, or is of another kind."""
        items = selection if type(selection) is tuple else (selection,)
        dots = [number for number, item in enumerate(items) if item is Ellipsis]
        absent = len(shape) - len(items) + len(dots)
        if absent < 0 or len(dots) > 1:
            return None
        at = dots[0] if dots else len(items)
        items = (*items[:at], *(FULL,) * absent, *items[at + len(dots) :])
        bounds, kept = [], []
        for item, size in zip(items, shape, strict=True):
            found = _bounds(item, size)
            if found is None:
                return None
            bounds.append(found)
            kept.append(type(item) is slice)
        return cls(bounds, kept) if any(kept) else None

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the result."""
        axes = zip(self.bounds, self.kept, strict=True)
        return tuple(stop - start for (start, stop), kept in axes if kept)

    def read(
        self, chunk: Sequence[int], grain: Sequence[int], find: Find, *, dtype: Any, order: Any
    ) -> Any:
        """Return the values of the box in new memory; None if a decoded chunk is not kept.

        Args:
            chunk: The shape of a chunk of the store.
            grain: The shape of what is kept: a chunk, or a part of it that a multiple of fills it.
            find: Finds it.
            dtype: The type of the elements.
            order: The order of the axes in memory, C or F.
        """
        cells = [
            self._cells(axis, whole, size)
            for axis, (whole, size) in enumerate(zip(chunk, grain, strict=True))
        ]
        parts = []
        for cell in product(*cells):
            coordinates, places, within, target = zip(*cell, strict=True)
            found = find(coordinates, places)
            if found is None:
                return None
            parts.append((found, within, tuple(one for one in target if one is not None)))
        out = np.empty(self.shape, dtype, order)
        for found, within, target in parts:
            out[target] = found[within]
        return out

    def _cells(self, axis: int, chunk: int, grain: int) -> list[_Cell]:
        """Return what the box touches along one axis.

        For each: which chunk, from where on in the chunk, what of that, and where it belongs.
        """
        (start, stop), kept = self.bounds[axis], self.kept[axis]
        cells = list[_Cell]()
        for first in range(start // grain * grain, stop, grain):
            low, high = max(start - first, 0), min(stop - first, grain)
            cells.append(
                (
                    first // chunk,
                    first % chunk,
                    slice(low, high) if kept else low,
                    slice(first + low - start, first + high - start) if kept else None,
                )
            )
        return cells


def _bounds(item: Any, size: int) -> tuple[int, int] | None:
    """Return where an int or a slice begins and ends; None if it is something else, or empty."""
    if type(item) is slice:
        if not all(one is None or _is_int(one) for one in (item.start, item.stop, item.step)):
            return None
        start, stop, step = item.indices(size)
        return (start, stop) if step == 1 and start < stop else None
    if not _is_int(item):
        return None
    start = int(item) + size if item < 0 else int(item)
    return (start, start + 1) if 0 <= start < size else None


def _is_int(item: Any) -> bool:
    return type(item) is int or isinstance(item, np.integer)
