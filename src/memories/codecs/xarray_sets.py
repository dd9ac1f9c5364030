"""xarray DataArray, Dataset and Variable.

Not lazy arrays: a dask graph is code, so it is pickled and signed. The one idea: a Dataset is its
variables, and the indexes over them are kept as the pandas indexes that they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from memories.codecs.base import Parts
from memories.codecs.packages import package
from memories.codecs.pickled import PickleCodec
from memories.codecs.registry import add
from memories.codecs.tree import StructureCodec

_ARRAY = "\0array"  # The variable that a DataArray becomes; no name of a user's has a NUL.


class _EagerCodec(StructureCodec):
    """A codec for objects whose arrays are NumPy's and whose indexes are pandas'."""

    def encode(self, value: Any) -> Parts:
        """Take the object apart; a lazy one, or one with indexes of another kind, is pickled."""
        if not _is_plain(value):
            return PickleCodec().encode(value)
        return super().encode(value)


def _is_plain(value: Any) -> bool:
    xarray = package("xarray")
    if isinstance(value, xarray.Variable):
        return not _is_lazy(value)
    known = (xarray.indexes.PandasIndex, xarray.indexes.PandasMultiIndex)
    dataset = value.to_dataset(name=_ARRAY) if isinstance(value, xarray.DataArray) else value
    return all(type(index) in known for index in dataset.xindexes.values()) and not any(
        _is_lazy(variable) for variable in dataset.variables.values()
    )


def _is_lazy(variable: Any) -> bool:
    return getattr(variable, "chunks", None) is not None


def _variable_apart(value: Any) -> Any:
    index = isinstance(value, package("xarray").IndexVariable)
    data = value.to_index() if index else np.asarray(value.values)
    return [index, list(value.dims), data, dict(value.attrs), dict(value.encoding)]


def _variable_together(structure: Any) -> Any:
    xarray = package("xarray")
    index, dims, data, attrs, encoding = structure
    kind = xarray.IndexVariable if index else xarray.Variable
    return kind(dims, data, attrs=attrs, encoding=encoding)


def _dataset_apart(value: Any) -> Any:
    xarray = package("xarray")
    indexes = [
        [
            isinstance(index, xarray.indexes.PandasMultiIndex),
            index.dim,
            list(variables),
            index.to_pandas_index(),
        ]
        for index, variables in value.xindexes.group_by_index()
    ]
    derived = {name for multi, _, names, _ in indexes if multi for name in names}
    return {
        "variables": [
            [name, name in value.coords, _plain_variable(variable, name in derived)]
            for name, variable in value.variables.items()
        ],
        "indexes": indexes,
        "attrs": dict(value.attrs),
        "encoding": dict(value.encoding),
    }


def _plain_variable(variable: Any, derived: bool) -> Any:
    """Return a variable's own description; the data of a level comes with its MultiIndex."""
    data = None if derived else np.asarray(variable.values)
    return [list(variable.dims), data, dict(variable.attrs), dict(variable.encoding)]


def _dataset_together(structure: Any) -> Any:
    xarray = package("xarray")
    indexes: dict[Any, Any] = {}
    made: dict[Any, Any] = {}
    for multi, dim, names, pandas_index in structure["indexes"]:
        index = _index(xarray, multi, dim, pandas_index)
        made.update(index.create_variables())
        indexes.update(dict.fromkeys(names, index))
    data: dict[Any, Any] = {}
    coords: dict[Any, Any] = {}
    for name, is_coord, (dims, values, attrs, encoding) in structure["variables"]:
        variable = made[name] if name in made else xarray.Variable(dims, values)
        variable.attrs.update(attrs)
        variable.encoding.update(encoding)
        (coords if is_coord else data)[name] = variable
    value = xarray.Dataset(
        data, coords=xarray.Coordinates(coords, indexes=indexes), attrs=structure["attrs"]
    )
    value.encoding.update(structure["encoding"])
    return value


def _index(xarray: Any, multi: bool, dim: Any, pandas_index: Any) -> Any:
    if multi:
        return xarray.indexes.PandasMultiIndex(pandas_index, dim)
    return xarray.indexes.PandasIndex(pandas_index, dim)


def _array_apart(value: Any) -> Any:
    return [value.name, _dataset_apart(value.to_dataset(name=_ARRAY))]


def _array_together(structure: Any) -> Any:
    name, dataset = structure
    return _dataset_together(dataset)[_ARRAY].rename(name)


def register() -> None:
    """Register the codecs of xarray."""
    xarray = package("xarray")
    add(_EagerCodec("xarray.dataset", _dataset_apart, _dataset_together), xarray.Dataset)
    add(_EagerCodec("xarray.array", _array_apart, _array_together), xarray.DataArray)
    add(
        _EagerCodec("xarray.variable", _variable_apart, _variable_together),
        xarray.Variable,
        xarray.IndexVariable,
    )
