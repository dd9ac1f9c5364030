"""One value of every type that needs no optional package, and an equality that forgives nothing."""

from __future__ import annotations

import datetime
import decimal
import math
import uuid
from dataclasses import dataclass, fields, is_dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np


@dataclass
class Layer:
    """A dataclass with an array inside."""

    name: str
    weights: np.ndarray
    scale: float = 1.0


class Point(NamedTuple):
    """A namedtuple."""

    x: int
    y: float


def arrays() -> dict[str, np.ndarray]:
    """Return arrays of every dtype and layout."""
    generator = np.random.default_rng(7)
    grid = generator.random((6, 7))
    record = np.zeros(5, dtype=[("id", "<i4"), ("xy", "f8", (2,)), ("name", "S3")])
    record["id"] = range(5)
    return {
        "float64": grid,
        "float32": grid.astype("f4"),
        "float16": grid.astype("f2"),
        "complex": grid + 1j * grid[::-1],
        "int8": (grid * 100).astype("i1"),
        "uint64": (grid * 2**60).astype("u8"),
        "bool": grid > 0.5,
        "big_endian": grid.astype(">f8"),
        "datetime": np.array(["2020-01-01", "NaT"], dtype="M8[ns]"),
        "timedelta": np.array([1, 2], dtype="m8[s]"),
        "bytes": np.array([b"a", b"bcd"]),
        "text": np.array(["ä", "😀"]),
        "structured": record,
        "zero_d": np.array(3.5),
        "empty": np.zeros((0, 3)),
        "fortran": np.asfortranarray(grid),
        "strided": grid[::2, ::3],
        "negative_strides": grid[::-1, ::-1],
        "nan_payload": np.array([0x7FF8000000001234], dtype="u8").view("f8"),
        "large": generator.random(300_000),
    }


def objects() -> dict[str, Any]:
    """Return everything that is no array."""
    return {
        "none": None,
        "true": True,
        "int": -(2**200),
        "float": math.inf,
        "nan": math.nan,
        "complex": complex(1, -0.0),
        "str": "häß😀\0",
        "bytes": bytes(range(256)),
        "long_bytes": b"x" * 2_000_000,
        "bytearray": bytearray(b"abc"),
        "tuple": (1, "a", (b"c", None)),
        "list": [1, [2.5, {"three": 3}]],
        "dict": {"b": 1, "a": [np.arange(3), None], 7: "int key", (1, 2): "tuple key"},
        "state_dict": {
            f"layer{i}.weight": np.random.default_rng(i).random((8, 8)) for i in range(5)
        },
        "dataclass": Layer("conv", np.arange(12.0).reshape(3, 4)),
        "namedtuple": Point(1, 2.5),
        "set": {1, "a", None},
        "frozenset": frozenset({b"x", 2}),
        "decimal": decimal.Decimal("1.10"),
        "datetime": datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.UTC),
        "timedelta": datetime.timedelta(days=-1, microseconds=3),
        "uuid": uuid.UUID(int=5),
        "path": PurePosixPath("a/b"),
        "range": range(1, 10, 3),
        "slice": slice(1, None, 2),
        "scalar": np.float32(1.5),
    }


def everything() -> dict[str, Any]:
    """Return all of it, by name."""
    return {**{f"array/{name}": value for name, value in arrays().items()}, **objects()}


def identical(left: Any, right: Any) -> bool:
    """Compare type for type and bit for bit."""
    if type(left) is not type(right):
        return False
    if isinstance(left, np.ndarray):
        return bool(
            left.dtype == right.dtype
            and left.shape == right.shape
            and (left.flags.f_contiguous == right.flags.f_contiguous or not left.flags.forc)
            and left.tobytes() == right.tobytes()
        )
    if isinstance(left, dict):
        return list(left) == list(right) and all(identical(left[key], right[key]) for key in left)
    if is_dataclass(left):
        return all(
            identical(getattr(left, field.name), getattr(right, field.name))
            for field in fields(left)
        )
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(identical, left, right))
    if isinstance(left, float):
        return np.float64(left).tobytes() == np.float64(right).tobytes()
    if isinstance(left, complex):
        return np.complex128(left).tobytes() == np.complex128(right).tobytes()
    return bool(left == right)
