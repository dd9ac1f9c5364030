"""Promise 2 for tables: no other reader sees what a reader does to its own table.

A table is many objects that refer to one another: blocks, extension arrays, categories, labels,
their names. Every way to write that pandas offers is tried on every kind of column, in every tier;
most of them may raise, none may show.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from memories import MemoryManager

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

Pokes = Iterator[tuple[str, Callable[[], Any]]]


COLUMNS: dict[str, Callable[[], Any]] = {
    "text": lambda: ["ann", "bob"],
    "age": lambda: [1, 2],
    "object": lambda: pd.Series(["ann", 1], dtype=object),
    "cells": lambda: pd.Series([[1], {"a": 1}], dtype=object),
    "python": lambda: pd.array(["ann", None], dtype="string[python]"),
    "arrow": lambda: pd.array(["ann", None], dtype="string[pyarrow]"),
    "backed": lambda: pd.array([1, None], dtype="int64[pyarrow]"),
    "masked": lambda: pd.array([1, None], dtype="Int64"),
    "kind": lambda: pd.Categorical(["x", "y"]),
    "days": lambda: pd.Categorical(pd.date_range("2020", periods=2)),
    "naive": lambda: pd.date_range("2020", periods=2),
    "zone": lambda: pd.date_range("2020", periods=2, tz="UTC"),
    "span": lambda: pd.timedelta_range(0, periods=2, freq="h"),
    "month": lambda: pd.period_range("2020", periods=2, freq="M"),
    "range": lambda: pd.interval_range(0, 2),
    "sparse": lambda: pd.arrays.SparseArray([0, 1]),
}
LABELS: dict[str, Callable[[], Any]] = {
    "rows": lambda: pd.RangeIndex(2, name="label"),
    "levels": lambda: pd.MultiIndex.from_arrays([["a", "b"], [1, 2]], names=["x", "y"]),
    **{
        name: lambda make=make: pd.Index(make(), name="label")  # type: ignore[misc]
        for name, make in COLUMNS.items()
        if name not in ("cells", "sparse")
    },
}


def several() -> Any:
    """Return a frame of several columns, whose blocks and labels hold more than one."""
    frame = pd.DataFrame({name: make() for name, make in list(COLUMNS.items())[:4]})
    frame.attrs["unit"] = ["m"]
    return frame


FRAMES: dict[str, Callable[[], Any]] = {
    "several": several,
    "numbers": lambda: pd.DataFrame(np.arange(4.0).reshape(2, 2), columns=["a", "b"]),
    **{
        name: lambda name=name, make=make: pd.DataFrame({name: make()})  # type: ignore[misc]
        for name, make in COLUMNS.items()
    },
    **{
        f"rows of {name}": lambda make=make: pd.DataFrame({"a": [1, 2]}, index=make())  # type: ignore[misc]
        for name, make in LABELS.items()
    },
    **{
        f"columns of {name}": lambda make=make: pd.DataFrame([[1, 2]], columns=make())  # type: ignore[misc]
        for name, make in LABELS.items()
    },
}


def pokes_at_array(array: Any) -> Pokes:
    """Yield ways to write to an extension array, or to what it is made of."""
    for number, value in enumerate((None, "EVE", 0)):
        yield f"item {number}", lambda value=value: array.__setitem__(0, value)
    yield "swapped", lambda: array.__setitem__(slice(None), array[::-1])
    yield "numpy", lambda: array.to_numpy().__setitem__(0, "EVE")
    yield "asarray", lambda: np.asarray(array).__setitem__(0, 9)
    yield "freq", lambda: setattr(array, "freq", None)
    yield "category name", lambda: setattr(array.categories, "name", "EVE")
    yield "category", lambda: array.categories.values.__setitem__(0, "EVE")
    yield "category array", lambda: array.categories.array.__setitem__(0, array.categories[1])


def pokes_at_index(index: Any) -> Pokes:
    """Yield ways to write to labels."""
    yield "name", lambda: setattr(index, "name", "EVE")
    yield "names", lambda: setattr(index, "names", ["EVE"] * index.nlevels)
    yield "freq", lambda: setattr(index, "freq", None)
    yield "values", lambda: index.values.__setitem__(0, index.values[1])
    yield "level name", lambda: setattr(index.levels[0], "name", "EVE")
    yield "level", lambda: index.levels[0].values.__setitem__(0, "EVE")
    if index.nlevels == 1:
        yield from pokes_at_array(index.array)


def pokes(frame: Any) -> Pokes:
    """Yield ways to write to a frame."""
    yield "setflags", lambda: setattr(frame.flags, "allows_duplicate_labels", False)
    yield "attrs", lambda: frame.attrs["unit"].append("s")
    yield "cell", lambda: frame.loc.__setitem__((frame.index[0], frame.columns[0]), "EVE")
    yield "fillna", lambda: frame.fillna(0, inplace=True)
    yield "replace", lambda: frame.replace({"ann": "EVE", 1: 9}, inplace=True)
    yield "sort", lambda: frame.sort_values(frame.columns[0], ascending=False, inplace=True)
    yield "add", lambda: frame.__iadd__(frame)
    yield "insert", lambda: frame.insert(0, "new", 1)
    yield "rename", lambda: setattr(frame, "columns", range(frame.shape[1]))
    yield "values", lambda: frame.values.__setitem__((0, 0), 9)
    for at in range(frame.shape[1]):
        yield f"{at} iloc", lambda at=at: frame.iloc.__setitem__((0, at), frame.iloc[-1, at])
        yield f"{at} iloc None", lambda at=at: frame.iloc.__setitem__((0, at), None)
        yield f"{at} iat", lambda at=at: frame.iat.__setitem__((0, at), frame.iat[-1, at])
        yield f"{at} append", lambda at=at: frame.iat[0, at].append("EVE")
        yield f"{at} values", lambda at=at: frame.iloc[:, at].values.__setitem__(0, "EVE")
        yield f"{at} numpy", lambda at=at: frame.iloc[:, at].to_numpy().__setitem__(0, "EVE")
        for name, poke in pokes_at_array(frame.iloc[:, at].array):
            yield f"{at} {name}", poke
    for name, poke in pokes_at_index(frame.index):
        yield f"index {name}", poke
    for name, poke in pokes_at_index(frame.columns):
        yield f"columns {name}", poke


def described(frame: Any) -> Any:
    """Return everything that describes a frame, in copies that share nothing with it."""
    parts = [frame.index, frame.columns, *(frame.iloc[:, i].array for i in range(frame.shape[1]))]
    parts += [level for part in parts for level in getattr(part, "levels", ())]
    return copy.deepcopy(
        [
            frame.attrs,
            frame.flags.allows_duplicate_labels,
            list(frame.index.names),
            list(frame.columns.names),
            *(getattr(part, "freq", None) for part in parts),
            *(getattr(getattr(part, "categories", None), "name", None) for part in parts),
            *(repr(part.dtype) if hasattr(part, "dtype") else "" for part in parts),
            *(list(map(repr, part)) for part in parts),
        ]
    )


def poke_all(give: Callable[[], Any], ways: Callable[[Any], Pokes]) -> None:
    """Write to one value after the other that `give` returns, each in another way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(len(list(ways(give())))):
            _, poke = list(ways(give()))[number]
            with contextlib.suppress(Exception):
                poke()


@pytest.mark.parametrize(("tier", "copied"), [("warm", None), ("cold", None), ("warm", True)])
def test_writing_to_a_retrieved_table_changes_nothing(
    manager: MemoryManager, tier: str, copied: bool | None
) -> None:
    """pandas copies on write since version 3, and never for labels, categories and objects."""
    for name, make in FRAMES.items():
        manager.store(name, make(), tier)
        expected = described(make())
        assert expected == described(manager.retrieve(name)), name
        poke_all(lambda name=name: manager.retrieve(name, copy=copied), pokes)  # type: ignore[misc]
        assert expected == described(manager.retrieve(name)), name


@pytest.mark.parametrize("kind", ["series", "index", "array"])
def test_writing_to_a_retrieved_part_changes_nothing(manager: MemoryManager, kind: str) -> None:
    """A column, labels or an extension array of its own is no better protected."""

    def ways(mine: Any) -> Pokes:
        if kind == "index":
            return pokes_at_index(mine)
        return pokes_at_array(mine.array if kind == "series" else mine)

    for name, make in (LABELS if kind == "index" else COLUMNS).items():
        value = make() if kind == "index" else pd.Series(make(), name=name)
        value = value.array if kind == "array" else value
        manager.store(name, value, "warm")
        expected = described(
            pd.DataFrame(index=value) if kind == "index" else pd.DataFrame({"a": value})
        )
        poke_all(lambda name=name: manager.retrieve(name), ways)  # type: ignore[misc]
        got = manager.retrieve(name)
        assert getattr(value, "name", None) == getattr(got, "name", None)
        found = described(pd.DataFrame(index=got) if kind == "index" else pd.DataFrame({"a": got}))
        assert expected == found, name


def test_writing_to_the_table_that_was_passed_in_changes_nothing(manager: MemoryManager) -> None:
    """The caller may change its frame again as soon as `store` returns."""
    for name in COLUMNS:
        make, count = FRAMES[name], 0

        def stored(name: str = name, make: Callable[[], Any] = make) -> Any:
            nonlocal count
            mine, count = make(), count + 1
            manager.store(f"{name}/{count}", mine, "warm")
            return mine

        poke_all(stored, pokes)
        expected = described(make())
        for number in range(1, count + 1):
            assert expected == described(manager.retrieve(f"{name}/{number}")), (name, number)
