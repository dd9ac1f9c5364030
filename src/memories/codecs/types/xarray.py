"""Codecs of xarray DataArray, Dataset, DataTree and Variable.

A Dataset is encoded as its variables and their pandas indexes. Lazy arrays contain a dask graph,
which is code; they are pickled and signed. xarray converts any object by its own methods; so the
types of all fields are checked here. Lengths and dimensions it compares itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from memories.codecs import registry
from memories.codecs.allowance import spend_steps
from memories.codecs.base import Parts
from memories.codecs.containers import hashes_safely
from memories.codecs.expect import expect, expect_dict, expect_fields, expect_instance
from memories.codecs.nested import ATOMS, StructureCodec
from memories.codecs.pickled import PickleCodec
from memories.codecs.registry import add
from memories.codecs.types.pandas_arrays import expect_index
from memories.errors import CorruptDataError, UnsupportedTypeError
from memories.foundation.optional_imports import package

_ARRAY = "\0array"  # The variable that a DataArray becomes; names of users have no NUL.
_MAX_LEVELS = 100  # Of a tree; xarray recurses for each.
_NODE_STEPS = 1000  # Of one node at one level.


class XarrayCodec(StructureCodec):
    """Objects whose arrays are in memory and whose indexes are those of pandas."""

    def encode(self, value: Any) -> Parts:
        """Encode the structure; a lazy object, or one with other indexes, is pickled."""
        if not _is_plain(value):
            return PickleCodec().encode(value)
        return super().encode(value)


def _is_plain(value: Any) -> bool:
    xarray, indexes = package("xarray"), package("xarray.indexes")
    if isinstance(value, xarray.IndexVariable):
        return not isinstance(value.to_index(), package("pandas").MultiIndex)
    if isinstance(value, xarray.Variable):
        return not _is_lazy(value)
    known = (indexes.PandasIndex, indexes.PandasMultiIndex)
    dataset = value.to_dataset(name=_ARRAY) if isinstance(value, xarray.DataArray) else value
    return all(type(index) in known for index in dataset.xindexes.values()) and not any(
        _is_lazy(variable) for variable in dataset.variables.values()
    )


def _is_lazy(variable: Any) -> bool:
    return getattr(variable, "chunks", None) is not None


def _variable_apart(value: Any) -> Any:
    head, tail = list(value.dims), [dict(value.attrs), dict(value.encoding)]
    if not isinstance(value, package("xarray").IndexVariable):
        return [False, head, value.data, *tail]
    index = value.to_index()
    dtype = _special_dtype(_index(False, value.dims[0], index), value.dtype)
    return [True, head, index, *tail, dtype]


def _variable_together(structure: Any) -> Any:
    found = expect_fields(structure, 5, "a variable", 6)
    index, dims, data, attrs, encoding, *dtype = found
    if not expect(index, bool, "a flag"):
        return _variable(dims, data, attrs, encoding)
    (dim,) = expect_fields(dims, 1, "the dimensions of an index")
    made = _index(False, dim, data, *dtype).create_variables()
    (variable,) = made.values()
    return _described(variable, attrs, encoding)


def _dataset_apart(value: Any) -> Any:
    indexes, derived = [], set()
    for index, variables in value.xindexes.group_by_index():
        multi = isinstance(index, package("xarray.indexes").PandasMultiIndex)
        pandas_index = index.to_pandas_index()
        # A coordinate may have another dtype than its pandas index: fixed-width text, or float16.
        plain = _index(multi, index.dim, pandas_index)
        dtypes = (
            {
                name: _special_dtype(plain, dtype, name)
                for name, dtype in index.level_coords_dtype.items()
            }
            if multi
            else _special_dtype(plain, index.coord_dtype)
        )
        indexes.append([multi, index.dim, list(variables), pandas_index, dtypes])
        derived |= set(variables) & set(plain.create_variables())
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
    """Return a variable's own description; the data of an indexed one is in the index."""
    data = None if derived else variable.data
    return [list(variable.dims), data, dict(variable.attrs), dict(variable.encoding)]


def _special_dtype(plain: Any, dtype: Any, level: Any = None) -> np.dtype[Any] | None:
    """Return the dtype of a coordinate if its index would give another one, else None."""
    usual = plain.coord_dtype if level is None else plain.level_coords_dtype[level]
    return dtype if isinstance(dtype, np.dtype) and dtype != usual else None


def _dataset_together(structure: Any) -> Any:
    xarray = package("xarray")
    indexes: dict[Any, Any] = {}
    made: dict[Any, Any] = {}
    expect_dict(structure, ("variables", "indexes", "attrs", "encoding"), "a dataset")
    for one in expect(structure["indexes"], list, "a list of indexes"):
        multi, dim, names, pandas_index, *dtypes = expect_fields(one, 4, "an index", 5)
        expect(names, list, "the names of an index")
        index = _index(multi, dim, pandas_index, *dtypes)
        made.update(index.create_variables())
        indexes.update(dict.fromkeys(names, index))
    data: dict[Any, Any] = {}
    coords: dict[Any, Any] = {}
    for row in expect(structure["variables"], list, "a list of variables"):
        name, is_coord, described = expect_fields(row, 3, "a variable")
        dims, values, attrs, encoding = expect_fields(described, 4, "a variable")
        if _expect_name(name) in made:
            variable = _described(made[name], attrs, encoding)
        else:
            variable = _variable(dims, values, attrs, encoding)
        (coords if is_coord else data)[name] = variable
    value = xarray.Dataset(
        data,
        coords=xarray.Coordinates(coords, indexes=indexes),
        attrs=expect(structure["attrs"], dict, "attributes"),
    )
    value.encoding.update(expect(structure["encoding"], dict, "an encoding"))
    return value


def _variable(dims: Any, data: Any, attrs: Any, encoding: Any) -> Any:
    """Return a variable over `data` as it is: xarray would change some dtypes."""
    for name in expect(dims, list, "the dimensions of a variable"):
        _expect_name(name)
    expect(attrs, dict, "attributes"), expect(encoding, dict, "an encoding")
    if not _is_data(data):
        raise CorruptDataError(f"a variable is stored as a {type(data).__name__}")
    kept = type(data) is np.ndarray and len(dims) == data.ndim
    return package("xarray").Variable(dims, data, attrs=attrs, encoding=encoding, fastpath=kept)


def _is_data(data: Any) -> bool:
    """Return whether xarray can take `data` without calling a class that the data have named."""
    family = type(data).__module__.partition(".")[0]
    return family in registry.FAMILIES or type(data) in ATOMS


def _expect_name(name: Any) -> Any:
    if not hashes_safely(name):
        raise CorruptDataError("the name of a stored variable cannot be hashed safely")
    return name


def _described(variable: Any, attrs: Any, encoding: Any) -> Any:
    expect(attrs, dict, "attributes"), expect(encoding, dict, "an encoding")
    variable.attrs.update(attrs)
    variable.encoding.update(encoding)
    return variable


def _index(multi: bool, dim: Any, pandas_index: Any, dtypes: Any = None) -> Any:
    """Return an index whose coordinates have `dtypes`, one or one per level, if given."""
    indexes = package("xarray.indexes")
    expect_index(pandas_index)
    _expect_name(dim)
    for dtype in dtypes.values() if type(dtypes) is dict else [dtypes]:
        if dtype is not None:
            expect_instance(dtype, np.dtype, "a dtype")
    if not multi:
        return indexes.PandasIndex(pandas_index, dim, dtypes)
    index = indexes.PandasMultiIndex(pandas_index, dim)
    special = {name: dtype for name, dtype in (dtypes or {}).items() if dtype is not None}
    if not special:
        return index
    return indexes.PandasMultiIndex(pandas_index, dim, {**index.level_coords_dtype, **special})


def _array_apart(value: Any) -> Any:
    return [value.name, _dataset_apart(value.to_dataset(name=_ARRAY))]


def _array_together(structure: Any) -> Any:
    name, dataset = expect_fields(structure, 2, "an array with dimensions")
    return _dataset_together(dataset)[_ARRAY].rename(_expect_name(name))


def _tree_apart(value: Any) -> Any:
    """Return the nodes of a tree by their paths below its root, as datasets.

    The root of a branch gets the coordinates that it inherits, as `copy()` gives them to it.
    """
    start, found = len(value.path.rstrip("/")), []
    for node in value.subtree:
        path = node.path[start:].strip("/")
        if path.count("/") >= _MAX_LEVELS:
            raise UnsupportedTypeError(f"a tree of more than {_MAX_LEVELS} levels cannot be stored")
        found.append([path, node.to_dataset(inherit=node is value)])
    return [value.name, found]


def _tree_together(structure: Any) -> Any:
    name, rows = expect_fields(structure, 2, "a tree")
    nodes: dict[str, Any] = {}
    for row in expect(rows, list, "the nodes of a tree"):
        path, dataset = expect_fields(row, 2, "a node of a tree")
        levels = expect(path, str, "a path").split("/")
        if path in nodes or len(levels) > _MAX_LEVELS or (path and not all(levels)):
            raise CorruptDataError("the paths of a stored tree are damaged")
        # xarray looks at all nodes above and, for coordinates that differ, below.
        spend_steps(_NODE_STEPS * len(levels), "a tree")
        nodes[path] = expect_instance(dataset, package("xarray").Dataset, "a node of a tree")
    return package("xarray").DataTree.from_dict(nodes, name=_expect_name(name))


def register() -> None:
    """Register the codecs of xarray."""
    xarray = package("xarray")
    add(StructureCodec("xarray.tree", _tree_apart, _tree_together), xarray.DataTree)
    add(XarrayCodec("xarray.dataset", _dataset_apart, _dataset_together), xarray.Dataset)
    add(XarrayCodec("xarray.array", _array_apart, _array_together), xarray.DataArray)
    add(
        XarrayCodec("xarray.variable", _variable_apart, _variable_together),
        xarray.Variable,
        xarray.IndexVariable,
    )
