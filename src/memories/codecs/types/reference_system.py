"""Checks the text of a coordinate reference system before PROJ or GDAL gets it.

Some texts name files, which PROJ would open: those are neither stored nor read.
"""

from __future__ import annotations

import re
from typing import Any, Final

from memories.codecs.expect import expect
from memories.errors import CorruptDataError

_MAX_CHARACTERS = 100_000
_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,20}:[A-Za-z0-9_.-]{1,40}")
_WKT: Final = re.compile(r"[A-Z][A-Z_]{2,40}\[")
_TOKEN: Final = re.compile(r"\+?[a-z_0-9]+(?:=[\w.,:+-]*)?")
_FILES: Final = re.compile(
    r"\b(?:init|catalog|file|[a-z]*grids)\s*=\s*(?!@null\b)|\bproj\s*=\s*pipeline", re.IGNORECASE
)


def names_no_file(text: str) -> bool:
    """Return whether a text is a code, WKT, PROJJSON or a PROJ string that leads to no file."""
    if len(text) > _MAX_CHARACTERS or _FILES.search(text):
        return False
    if _CODE.fullmatch(text) or _WKT.match(text) or text.startswith("{"):
        return True
    return all(_TOKEN.fullmatch(token) for token in text.split()) and "proj=" in text


def expect_reference_system(text: Any) -> str:
    """Return the text of a reference system, which names no file.

    Raises:
        CorruptDataError: it is anything else.
    """
    found = expect(text, str, "a reference system")
    if not names_no_file(found):
        raise CorruptDataError("a stored reference system names a file, or is none")
    return found
