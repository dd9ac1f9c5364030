"""Nested plain containers are hashed in C; the hash must be that of their types and contents."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import pytest

from memories.codecs import plain_hash as module
from memories.codecs.content_hash import content_hash
from memories.codecs.plain_hash import plain_hash
from memories.errors import UnsupportedTypeError

CONFIG = {"rates": [0.1, 0.2], "layers": ((64, "relu"), (64, None)), "seed": 7, "raw": b"\0"}


class Point(NamedTuple):
    x: int
    y: int


class Text(str):
    pass


DIFFERENT: list[Any] = [
    [[1]], [(1,)], [[True]], [[1.0]], [["1"]], [[b"1"]], [[]], [()], [{}], [[-0.0]], [[0.0]], [[0]],
    [[None]], [[1, 2]], [[1], [2]], [[[1, 2]]], {"a": [1]}, {"a": (1,)}, {1: [1]}, {"1": [1]},
    {True: [1]}, {"a": [1], "b": [2]}, {"b": [2], "a": [1]}, [["\ud800"]], [[1 << 80]], [[1 << 64]],
    [[bytearray(b"1")]], [[np.array([49], np.uint8)]], [[Text("1")]],
    [[Point(1, 2)]], [[{1, 2}]], [[frozenset({1, 2})]], [[1j]],
    OrderedDict(a=[1]), [[float("inf")]],
]  # fmt: skip


def test_different_values_have_different_hashes() -> None:
    """marshal writes a bytearray and an array as if they were bytes."""
    hashes = [content_hash(value) for value in DIFFERENT]
    assert len(hashes) == len(set(hashes))


def test_what_is_not_plain_is_left_to_others() -> None:
    for value in ([[np.zeros(2)]], [{1, 2}], [Text("a")], [Point(1, 2)], [bytearray()], {(1,): 2}):
        assert plain_hash(value) is None


def test_what_values_share_does_not_count() -> None:
    """A list that was read from a file shares other parts than one that a program has made."""
    inner = [1, "a" * 3]
    shared = [inner, inner, {"x": inner}]
    assert plain_hash(shared) == plain_hash(copy.deepcopy(shared))
    assert plain_hash([inner, inner]) == plain_hash([[1, "aaa"], [1, "".join("aaa")]])
    assert content_hash(CONFIG) == content_hash(copy.deepcopy(CONFIG))


def test_a_value_that_contains_itself_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no end to walk to, and neither has one whose parts double at each level."""
    monkeypatch.setattr(module, "MOST_CONTAINERS", 1000)
    itself: list[Any] = [[1]]
    itself.append(itself)
    assert plain_hash(itself) is None
    assert content_hash(itself) == content_hash(copy.deepcopy(itself))
    doubled: list[Any] = [1]
    for _ in range(40):
        doubled = [doubled, doubled]
    assert plain_hash(doubled) is None
    assert 32 == len(content_hash(doubled))


def test_a_deep_one_is_refused_as_before() -> None:
    nested: list[Any] = []
    for _ in range(5000):
        nested = [nested]
    with pytest.raises(UnsupportedTypeError, match="nested too deeply"):
        content_hash(nested)


def test_the_hash_is_the_same_in_every_process() -> None:
    """Interned texts and addresses must not count."""
    code = (
        "from memories.codecs.content_hash import content_hash\n"
        f"print(content_hash({CONFIG!r}), end='')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert content_hash(CONFIG) == run.stdout
