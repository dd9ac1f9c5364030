"""The codec of xarray's DataTree under `CodecTests`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memories import codecs
from memories.codecs.base import Parts
from memories.errors import CorruptDataError, UnsupportedTypeError
from memories.testing.codecs import CodecTests, identical, through_frame

xr = pytest.importorskip("xarray", reason="xarray is not installed")
pd = pytest.importorskip("pandas", reason="pandas is not installed")


def level(size: int) -> Any:
    """Return one level of a pyramid, with units and an encoding."""
    found = xr.Dataset(
        {"v": (("x", "y"), np.arange(size * 3, dtype="f4").reshape(size, 3), {"units": "K"})},
        coords={"x": np.arange(size), "label": ("x", [f"row {i}" for i in range(size)])},
        attrs={"level": size, "nested": {"a": [1]}},
    )
    found.v.encoding = {"dtype": "int16", "scale_factor": 0.5, "_FillValue": -1}
    found.encoding = {"source": "a.zarr"}
    return found


def pyramid() -> Any:
    """Return a tree with levels, an empty node between, and a coordinate for all of them."""
    whole = xr.Dataset(coords={"time": pd.date_range("2020", periods=2)}, attrs={"title": "t"})
    nodes = {"/": whole, "/a/b/fine": level(4), "/a/coarse": level(2), "/z": xr.Dataset()}
    return xr.DataTree.from_dict(nodes, name="pyramid")


class TestTrees(CodecTests):
    """Trees with and without a name, empty ones, and branches of a larger tree."""

    values = (
        pyramid(),
        xr.DataTree(),
        xr.DataTree(level(3), name="leaf"),
        pyramid()["a"],
        pyramid()["a/b/fine"],
        [pyramid(), {"again": xr.DataTree(level(1))}],
    )

    def same(self, left: Any, right: Any) -> bool:
        """Compare names, order, attributes, encodings and bits of every node."""
        if isinstance(left, list):
            return self.same(left[0], right[0]) and self.same(left[1]["again"], right[1]["again"])
        assert type(left) is type(right) is xr.DataTree
        assert left.name == right.name
        below = [[str(node.relative_to(one)) for node in one.subtree] for one in (left, right)]
        assert below[0] == below[1]
        for one, other in zip(left.subtree, right.subtree, strict=True):
            assert one.encoding == other.encoding
            mine, theirs = (
                one.to_dataset(inherit=one is left),
                other.to_dataset(inherit=other is right),
            )
            assert mine.identical(theirs)
            assert list(mine.variables) == list(theirs.variables)
            for name in mine.variables:
                assert mine[name].encoding == theirs[name].encoding
                assert identical(np.asarray(mine[name]), np.asarray(theirs[name]))
        return True

    def test_none_is_a_pickle(self) -> None:
        """A tree from a stranger can be read."""
        for value in self.values:
            assert not codecs.carries_code(codecs.encode(value).codec)


def test_a_reader_changes_only_its_own_tree() -> None:
    """Nodes, attributes and variables are made for each reader; arrays cannot be written to."""
    _, payload, nbytes = codecs.own_value(pyramid())
    assert nbytes > 72
    first, second = payload.open(), payload.open()
    first["a/coarse"].attrs["level"] = 99
    first["a/coarse/v"].attrs["units"] = "C"
    del first["a"]["b"]
    with pytest.raises(ValueError, match="read-only"):
        second["a/coarse/v"].data[:] = 0
    assert TestTrees().same(pyramid(), payload.open())


def test_a_branch_of_a_lazy_tree_is_signed() -> None:
    """A dask graph is code, wherever in a tree it lies."""
    pytest.importorskip("dask.array", reason="dask is not installed")
    lazy = xr.DataTree.from_dict({"/": xr.Dataset(), "/a": level(4).chunk({"x": 2})})
    assert codecs.carries_code(codecs.encode(lazy).codec)


@pytest.mark.parametrize(
    "paths", [["", "a//b"], ["", "/"], ["a/"], ["", ""], ["", 5], ["/".join("a" * 500)]]
)
def test_paths_that_lead_nowhere_are_refused(paths: list[Any]) -> None:
    """By us: xarray would make nodes for each part of them."""
    parts = codecs.encode(xr.DataTree())
    node = parts.meta["nodes"]
    row = next(one for one in node if one[0] == "list" and one[1][0] == "")
    rows = next(
        i for i, one in enumerate(node) if one[0] == "list" and one[1] == [[node.index(row)]]
    )
    dataset = row[1][1]
    extra = [["list", [path, dataset]] for path in paths]
    places = [[len(node) + i] for i in range(len(extra))]
    nodes = [*node, *extra, ["list", places]]
    nodes.append(["list", [None, [len(nodes) - 1]]])
    assert rows
    with pytest.raises(CorruptDataError):
        codecs.decode(
            Parts("xarray.tree", {"nodes": nodes, "root": [len(nodes) - 1]}, parts.buffers)
        )


def test_a_tree_of_hundreds_of_levels_is_refused() -> None:
    """xarray recurses for each of them."""
    with pytest.raises(UnsupportedTypeError, match="levels"):
        codecs.encode(xr.DataTree.from_dict({"/".join("a" * 200): level(1)}))


NAMES = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1)


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.lists(NAMES.filter(lambda s: s not in (".", "..")), max_size=3).map("/".join),
        st.dictionaries(st.sampled_from("abc"), st.floats() | st.text(max_size=3), max_size=2),
        max_size=4,
    ),
    st.none() | NAMES,
)
def test_every_tree_comes_back(nodes: dict[str, Any], name: Any) -> None:
    """Of any paths, with variables that collide with no child."""
    made = {
        path: xr.Dataset(
            {f"v/{key}".replace("/", "\0"): ((), value) for key, value in data.items()}
        )
        for path, data in nodes.items()
    }
    tree = xr.DataTree.from_dict(made, name=name)
    assert TestTrees().same(tree, through_frame(tree))
