"""Hostile parts give a value or an error of this package, in little time and memory.

An attacker with write access to a disk or a bucket can also compute checksums, so a decoder gets
them.
"""

from __future__ import annotations

import array
import copy
import dataclasses
import enum
import os
import random
import resource
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.format import make_golden

from memories import codecs
from memories.codecs import arrays, dtypes, structures
from memories.codecs.base import Parts
from memories.errors import CorruptDataError, MemoriesError, UnsupportedTypeError

ROUNDS = int(os.environ.get("MEMORIES_HOSTILE_ROUNDS", "1500"))
JUNK = (
    None, 0, -1, 1, 2**31, 2**62, "", "a", "M8[ns]", b"", [], [0], [[0]], {}, 1.5,
    float("nan"), True, "|O", "C", "object", ["os", "system"], "pickle", [[], []],
)  # fmt: skip


def places(meta: Any) -> list[tuple[Any, Any]]:
    """Return every container in a description with each of its keys."""
    found, todo = [], [meta]
    while todo:
        item = todo.pop()
        if isinstance(item, dict | list):
            pairs = list(item.items() if isinstance(item, dict) else enumerate(item))
            found.extend((item, key) for key, _ in pairs)
            todo.extend(child for _, child in pairs)
    return found


def damage(parts: Parts, rng: random.Random) -> Parts:
    """Return `parts` with something in their description or their buffers replaced."""
    meta, buffers = copy.deepcopy(parts.meta), list(parts.buffers)
    for _ in range(rng.randint(1, 3)):
        somewhere = places(meta)
        if somewhere and rng.random() < 0.6:
            container, key = rng.choice(somewhere)
            donor, other = rng.choice(somewhere)
            container[key] = copy.deepcopy(rng.choice([rng.choice(JUNK), donor[other]]))
        elif buffers:
            index = rng.randrange(len(buffers))
            data = bytearray(buffers[index])
            for _ in range(rng.randint(1, 4) if data else 0):
                data[rng.randrange(len(data))] = rng.randrange(256)
            keep = rng.randrange(len(data) + 1) if rng.random() < 0.2 else len(data)
            buffers[index] = memoryview(bytes(data[:keep]))
    return Parts(parts.codec, meta, tuple(buffers))


def victims() -> list[Parts]:
    """Return the parts of what the golden frames hold."""
    values = [*make_golden.values().values(), *make_golden.tables().values()]
    small = [parts for parts in map(codecs.encode, values) if parts.nbytes < 10_000]
    assert not any(codecs.carries_code(parts.codec) for parts in small)
    return small


def test_damaged_parts_give_a_value_or_an_error_of_ours(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Never a foreign error, a crash, a hang, or memory out of proportion."""
    for package in ("pandas", "polars", "pyarrow", "scipy", "xarray"):
        pytest.importorskip(package)
    rng, values, sound = random.Random(20261122), victims(), 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(ROUNDS):
            parts = damage(rng.choice(values), rng)
            start = time.perf_counter()
            try:
                codecs.size_of(codecs.decode(parts))
                sound += 1
            except MemoriesError:
                pass
            assert time.perf_counter() - start < 60, parts
    assert 0 < sound < ROUNDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000
    capfd.readouterr()  # Where polars panics it writes to the terminal first.


def test_a_number_is_no_length() -> None:
    """`bytes(n)` allocates n bytes: four in a description must not become gigabytes."""
    for kind in ("S", "U", "<i8"):
        parts = Parts("numpy.scalar", {"dtype": kind, "data": 2**40})
        with pytest.raises(CorruptDataError, match="no bytes"):
            codecs.decode(parts)


@pytest.mark.parametrize("ordinals", [0, 1.5, None, "x"])
def test_compiled_code_gets_arrays_only(ordinals: Any) -> None:
    """pandas takes a period array's word for it: a number there ended the process."""
    pandas = pytest.importorskip("pandas")
    parts = codecs.encode(pandas.period_range("2020", periods=3, freq="M"))
    inner = next(node for node in parts.meta["nodes"] if node[0] == "pandas.periods")
    inner[1]["nodes"][-1][1][0] = ordinals
    with pytest.raises(CorruptDataError):
        codecs.decode(parts)


@pytest.mark.parametrize("layout", ["csr", "csc", "bsr"])
@pytest.mark.parametrize(
    "starts",
    [
        [0, 2**31 - 1, -2, 8],  # The differences overflow to positive ones.
        [0, 2**30, 4, 8],
        [0, -4, 4, 8],
        [4, 4, 4, 8],
        [0, 2, 4, 9],
        [0, 2, 4, 2**31 - 1],
    ],
)
def test_rows_of_a_sparse_matrix_stay_inside_it(layout: str, starts: list[int]) -> None:
    """A product with such a matrix ended the process: scipy checks differences in 32 bits."""
    sparse = pytest.importorskip("scipy.sparse")
    size, blocks = (6, (2, 2)) if layout == "bsr" else (3, ())
    pieces = np.ones((8, *blocks)), np.arange(8, dtype=np.int32) % 3
    sound = np.array([0, 2, 5, 8], np.int32)
    kind = getattr(sparse, f"{layout}_array")
    parts = codecs.encode(kind((*pieces, sound), shape=(size, size)))
    wild = np.array(starts, np.int32).tobytes()
    place = [bytes(buffer) for buffer in parts.buffers].index(sound.tobytes())
    buffers = list(parts.buffers)
    buffers[place] = memoryview(wild)
    with pytest.raises(CorruptDataError, match="sparse"):
        codecs.decode(parts._replace(buffers=tuple(buffers)))


def test_room_at_the_end_of_a_sparse_matrix_is_no_damage() -> None:
    """scipy allows arrays that are longer than what the matrix uses, and cuts them off."""
    sparse = pytest.importorskip("scipy.sparse")
    value = sparse.csr_array(np.eye(4))
    value.data, value.indices = np.resize(value.data, 9), np.resize(value.indices, 9)
    value.indices[4:] = 77
    again = codecs.decode(codecs.encode(value))
    assert np.array_equal(np.eye(4), again.toarray())
    assert 4 == len(again.data) == len(again.indices)


@dataclasses.dataclass
class Plain:
    """A class that a stored name may lead to."""

    x: int


class Colour(enum.Enum):
    """Likewise."""

    RED = 1


DAMAGED: dict[str, tuple[Callable[[], object], str]] = {
    "a name that is none": (lambda: structures.find_type("os"), "name of a type"),
    "a field too many": (lambda: structures.build_dataclass(Plain, {"y": 1}), "no field 'y'"),
    "a member of no enum": (lambda: structures.find_member(Plain, "RED"), "is not an enum"),
    "an axis too many": (lambda: arrays.expect_array(np.zeros((2, 2)), "f"), "has 2 axes"),
    "an array of objects": (lambda: dtypes.build([["a", "|O"]]), "dtype"),
    "runs of another length": (
        lambda: codecs.decode(Parts("numpy.scalar", {"dtype": "<f8", "data": b"1"})), "8 bytes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_description_is_named(what: str) -> None:
    """As what it is, and by an error of ours."""
    read, said = DAMAGED[what]
    with pytest.raises(CorruptDataError, match=said):
        read()


def test_a_member_that_was_removed_is_no_damage() -> None:
    """The class has changed since."""
    with pytest.raises(UnsupportedTypeError, match="has no member 'BLUE' any more"):
        structures.find_member(Colour, "BLUE")


def test_the_memory_of_another_machine_is_not_read_as_of_this_one() -> None:
    """Its numbers would be others; an empty one is read, for it has none."""
    parts = codecs.encode(memoryview(array.array("i", [1, 2])))
    other = {"little": "big", "big": "little"}[sys.byteorder]
    with pytest.raises(UnsupportedTypeError, match="another byte order"):
        codecs.decode(parts._replace(meta={**parts.meta, "order": other}))
    empty = codecs.decode(codecs.encode(memoryview(array.array("i"))))
    assert ("i", (0,)) == (empty.format, empty.shape)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (memoryview(np.zeros(2, "S3")), "store an array of it"),
        (memoryview(np.zeros((0, 3))), "an empty memoryview of shape"),
    ],
)
def test_memory_that_cannot_be_described_is_refused(value: memoryview, said: str) -> None:
    """With what can be stored instead."""
    with pytest.raises(UnsupportedTypeError, match=said):
        codecs.encode(value)
