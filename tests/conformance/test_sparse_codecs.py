"""The codecs of the package sparse under `CodecTests`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from memories import codecs
from memories.errors import CorruptDataError, MemoriesError, UnsupportedTypeError
from memories.testing.codecs import CodecTests, identical, through_frame

sparse = pytest.importorskip("sparse", reason="sparse is not installed")

CUBE = np.zeros((4, 5, 6), "f4")
CUBE[1, 2, 3], CUBE[3, 0, 5], CUBE[0, 0, 0] = 1.5, -0.0, np.nan


def dictionary_of(value: Any) -> Any:
    """Return a DOK with the items of an array."""
    return sparse.DOK.from_coo(value)


class TestSparse(CodecTests):
    """COO, GCXS and DOK of numbers, of every number of axes."""

    cube = sparse.COO(CUBE)
    values = (
        cube,
        sparse.COO(np.nan_to_num(CUBE).astype(">i2")),
        sparse.COO(np.array(5)),
        sparse.COO(np.array([0, 1, 0, 2j])),
        sparse.COO(np.full((3, 3), 7, "u1"), fill_value=7),
        sparse.COO(np.eye(3, dtype=bool)),
        sparse.COO(np.zeros((0, 3))),
        sparse.COO(np.array([[0, 2**40]]), np.array([1.0, 2.0]), shape=(2**41,)),
        sparse.GCXS(cube),
        sparse.GCXS(cube, compressed_axes=[1, 2]),
        sparse.GCXS(sparse.COO(np.array([0, 1, 0, 2.5]))),
        sparse.GCXS.from_numpy(np.eye(4), compressed_axes=[1]),
        sparse.GCXS(sparse.COO(np.full((3, 3), 7, "u1"), fill_value=7)),
        dictionary_of(cube),
        sparse.DOK((2, 3), dtype="i8"),
        sparse.DOK((5,), {(3,): 2.5, (1,): 1.0}),
        [cube, {"mask": sparse.GCXS(cube)}],
    )

    def same(self, left: Any, right: Any) -> bool:
        """Compare every array of it, and what fills it."""
        if isinstance(left, list):
            return self.same(left[0], right[0]) and self.same(left[1]["mask"], right[1]["mask"])
        if type(left) is not type(right):
            return False
        assert (left.shape, left.dtype) == (right.shape, right.dtype)
        assert identical(left.fill_value, right.fill_value)
        assert identical(left.todense(), right.todense()) if left.size < 1000 else True
        if isinstance(left, sparse.DOK):
            items = [np.array([*one.data.values()], one.dtype) for one in (left, right)]
            return list(left.data) == list(right.data) and identical(*items)
        names = ("data", "coords") if isinstance(left, sparse.COO) else ("data", "indices")
        assert all(identical(getattr(left, name), getattr(right, name)) for name in names)
        if isinstance(left, sparse.GCXS):
            assert left.compressed_axes == right.compressed_axes
            return identical(np.asarray(left.indptr), np.asarray(right.indptr))
        return True

    def test_none_is_a_pickle(self) -> None:
        """As long as they hold numbers."""
        for value in self.values:
            assert not codecs.carries_code(codecs.encode(value).codec)


def test_an_array_of_a_reader_is_its_own() -> None:
    """sparse writes to the arrays of some formats."""
    _, payload, nbytes = codecs.own_value(sparse.COO(CUBE))
    assert nbytes > 50
    first = payload.open()
    first.data[:] = 0
    assert not identical(first.data, payload.open().data)


@pytest.mark.parametrize("kind", ["coo", "gcxs", "dok"])
def test_an_index_outside_of_the_shape_is_refused(kind: str) -> None:
    """The compiled functions of sparse would read beyond their memory."""
    value = {
        "coo": sparse.COO(CUBE), "gcxs": sparse.GCXS(sparse.COO(CUBE)),
        "dok": dictionary_of(sparse.COO(CUBE)),
    }[kind]  # fmt: skip
    parts, refused = codecs.encode(value), 0
    for place, buffer in enumerate(parts.buffers):
        if buffer.nbytes % 8 or buffer.nbytes < 24:
            continue
        for number in (-1, 2**40, -(2**63), 10**6):
            wild = np.frombuffer(bytes(buffer), np.int64).copy()
            wild[1] = number
            buffers = list(parts.buffers)
            buffers[place] = memoryview(wild).cast("B")
            with pytest.raises(CorruptDataError):
                codecs.decode(parts._replace(buffers=tuple(buffers)))
            refused += 1
    assert refused


def test_a_broken_array_is_refused_when_it_is_stored() -> None:
    """And not when it is read, where it could no longer be mended."""
    value = sparse.COO(CUBE)
    value.coords = value.coords[:, ::-1]
    with pytest.raises(UnsupportedTypeError, match="order"):
        codecs.encode(value)


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from(["?", "i1", "u8", "f8", "c16"]),
        hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4),
        fill=st.just(0),
    )
)
def test_every_sparse_array_comes_back(array: Any) -> None:
    """Of any shape and dtype, in each format."""
    coo = sparse.COO(array)
    suite = TestSparse()
    for value in (coo, sparse.GCXS(coo), dictionary_of(coo)):
        assert suite.same(value, through_frame(value))


@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(["coo", "gcxs", "dok"]))
def test_damaged_arrays_are_a_value_or_an_error_of_ours(rng: Any, kind: str) -> None:
    """And a value can be used."""
    from tests.unit.codecs.test_hostile import damage

    coo = sparse.COO(CUBE)
    value = {"coo": coo, "gcxs": sparse.GCXS(coo), "dok": dictionary_of(coo)}[kind]
    try:
        got = codecs.decode(damage(codecs.encode(value), rng))
    except MemoriesError:
        return
    if getattr(got, "size", 10**6) < 10**5:
        got.todense()
