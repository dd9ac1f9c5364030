"""The codec of coordinate reference systems of pyproj: the text that each was made of.

That is what pyproj itself pickles. What PROJ trusts in such a text is in `reference_system`.
"""

from __future__ import annotations

from typing import Any

from memories.codecs.nested import StructureCodec
from memories.codecs.registry import add
from memories.codecs.types.reference_system import expect_reference_system, names_no_file
from memories.errors import UnsupportedTypeError
from memories.foundation.optional_imports import package


def _apart(value: Any) -> str:
    """Return the text of a reference system; its WKT where the text might lead to a file.

    Raises:
        UnsupportedTypeError: the WKT is not the same reference system, or names a file, too.
    """
    if names_no_file(value.srs):
        return str(value.srs)
    text = str(value.to_wkt())
    if not names_no_file(text) or package("pyproj").CRS(text) != value:
        raise UnsupportedTypeError(
            f"the reference system {value.srs[:80]!r} cannot be stored: it needs a file of this "
            "machine, or WKT cannot describe it; use one with a code or without files"
        )
    return text


def _together(text: Any) -> Any:
    return package("pyproj").CRS(expect_reference_system(text))


def register() -> None:
    """Register the codec of pyproj."""
    add(StructureCodec("pyproj.crs", _apart, _together), package("pyproj").CRS)
