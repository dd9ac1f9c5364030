"""A box of decoded chunks is the slice of numpy, and what is no box is left to zarr."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("zarr", minversion="3", reason="zarr 3 is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import basic_indices

from memories.integrations.zarr.boxes import SelectedBox

SHAPE = (13, 9, 7)
VALUES = np.arange(13 * 9 * 7).reshape(SHAPE)


def read(selection: Any, chunk: Any, grain: Any, order: str = "C", absent: Any = None) -> Any:
    """Read a box of `VALUES`, padded to whole chunks; None if it is not one."""
    box = SelectedBox.of(selection, SHAPE)
    pads = [(0, -size % whole) for size, whole in zip(SHAPE, chunk, strict=True)]
    padded = np.pad(VALUES, pads, constant_values=-1)

    def find(coordinates: tuple[int, ...], start: tuple[int, ...]) -> Any:
        if coordinates == absent:
            return None
        places = zip(coordinates, chunk, start, grain, strict=True)
        return padded[tuple(slice(c * w + s, c * w + s + g) for c, w, s, g in places)]

    return box and box.read(chunk, grain, find, dtype=VALUES.dtype, order=order)


@given(basic_indices(SHAPE, allow_newaxis=False), st.sampled_from("CF"), st.booleans())
@settings(max_examples=200, deadline=None)
def test_a_box_is_the_slice_of_numpy(selection: Any, order: str, is_sharded: bool) -> None:
    """Of chunks, and of inner chunks of shards, at the edges too."""
    found = read(selection, (6, 4, 4) if is_sharded else (3, 2, 2), (3, 2, 2), order)
    expected = VALUES[selection]
    if found is None:
        steps = selection if isinstance(selection, tuple) else (selection,)
        stepped = any(isinstance(one, slice) and one.step not in (None, 1) for one in steps)
        assert expected.size == 0 or expected.ndim == 0 or stepped
    else:
        assert np.array_equal(expected, found)
        assert found.flags[f"{order}_CONTIGUOUS"] and found.base is None


@pytest.mark.parametrize(
    "selection",
    [
        [1, 2], np.array([1, 2]), (slice(None), [0]), VALUES > 3, True, "field", None,
        (..., ...), (0, 0, 0, 0), 13, -14, slice(1.0, 2), slice(None, None, -1), 1.5, (1, 2, 3),
    ],
)  # fmt: skip
def test_what_is_no_box_is_left_to_zarr(selection: Any) -> None:
    """zarr has its own errors, and its own results for single elements."""
    assert SelectedBox.of(selection, SHAPE) is None


def test_a_chunk_that_is_not_kept_leaves_the_box_to_zarr() -> None:
    """Nothing is put together of a part of it."""
    assert read(slice(0, 3), (3, 2, 2), (3, 2, 2)) is not None
    assert read(slice(0, 3), (3, 2, 2), (3, 2, 2), absent=(0, 4, 3)) is None
    assert SelectedBox.of((), ()) is None
