"""The codec of affine transformations: the six numbers of each."""

from __future__ import annotations

from typing import Any

from memories.codecs.expect import expect, expect_fields
from memories.codecs.nested import StructureCodec
from memories.codecs.registry import add
from memories.foundation.optional_imports import package


def _apart(value: Any) -> list[float]:
    return [float(number) for number in (value.a, value.b, value.c, value.d, value.e, value.f)]


def _together(structure: Any) -> Any:
    numbers = expect_fields(structure, 6, "a transformation")
    return package("affine").Affine(*(expect(number, float, "a number") for number in numbers))


def register() -> None:
    """Register the codec of affine."""
    add(StructureCodec("affine.affine", _apart, _together), package("affine").Affine)
