"""Codecs of profiles, reference systems and windows of rasterio.

GDAL gets a reference system as WKT only, which is checked as `reference_system` says.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from memories.codecs.expect import expect, expect_fields
from memories.codecs.nested import StructureCodec
from memories.codecs.registry import add
from memories.codecs.types.reference_system import expect_reference_system, names_no_file
from memories.errors import CorruptDataError, UnsupportedTypeError
from memories.foundation.optional_imports import package


def _crs_apart(value: Any) -> str:
    text = str(value.to_wkt())
    if text and not names_no_file(text):
        raise UnsupportedTypeError(
            "a reference system cannot be stored that needs a file of this machine: use one with "
            "a code or without files"
        )
    return text


def _crs_together(text: Any) -> Any:
    kind = package("rasterio.crs").CRS
    return kind.from_wkt(expect_reference_system(text)) if text != "" else kind()


def _profile_apart(value: Any) -> Any:
    return dict(value.data)


def _profile_together(kind: str, structure: Any) -> Any:
    made = getattr(package("rasterio.profiles"), kind)()
    made.data = expect(structure, dict, "a profile")
    return made


def _window_apart(value: Any) -> Any:
    return [value.col_off, value.row_off, value.width, value.height]


def _window_together(structure: Any) -> Any:
    numbers = expect_fields(structure, 4, "a window")
    if not all(type(number) in (int, float) or isinstance(number, np.number) for number in numbers):
        raise CorruptDataError("a window is stored as something else than numbers")
    return package("rasterio.windows").Window(*numbers)


def register() -> None:
    """Register the codecs of rasterio."""
    profiles = package("rasterio.profiles")
    add(StructureCodec("rasterio.crs", _crs_apart, _crs_together), package("rasterio.crs").CRS)
    add(
        StructureCodec("rasterio.window", _window_apart, _window_together),
        package("rasterio.windows").Window,
    )
    for name, kind in (("profile", "Profile"), ("gtiff", "DefaultGTiffProfile")):

        def together(structure: Any, kind: str = kind) -> Any:
            return _profile_together(kind, structure)

        add(
            StructureCodec(f"rasterio.{name}", _profile_apart, together),
            getattr(profiles, kind),
        )
