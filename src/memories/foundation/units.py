"""Parses and formats sizes. A GB is 10**9 bytes, a GiB 2**30."""

from __future__ import annotations

import math
import re

from memories.errors import InvalidOptionError

GB = 10**9
MAX_BYTES = 2**63 - 1
MOST_GIGABYTES = 1_000_000  # A larger number without a unit is a count of bytes by mistake.

_UNITS = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "pb": 10**15,
    "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
    "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40, "pi": 2**50,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40, "pib": 2**50,
}  # fmt: skip
_SHARE = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*%\s*")
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-zA-Z]*)\s*")


def parse_size(size: float | int | str, *, name: str = "size") -> int:
    """Return `size` in bytes.

    Args:
        size: A number of gigabytes (10**9 bytes), or a string such as `"512MiB"` or `"2 GB"`.
        name: What the size is for, named in the error.

    Raises:
        InvalidOptionError: `size` is negative, not finite, not a number, or beyond 2**63 - 1 bytes;
            it is a text without a unit, or a number of gigabytes above a million, which must be
            meant as bytes.
    """
    if isinstance(size, bool) or not isinstance(size, (int, float, str)):
        raise InvalidOptionError(
            f"{name}={size!r} is not a size: give gigabytes as a number, or a string like '512MiB'"
        )
    if isinstance(size, str):
        match = _SIZE.fullmatch(size)
        unit = _UNITS.get(match[2].lower()) if match else None
        if match is None or unit is None:
            raise InvalidOptionError(
                f"{name}={size!r} is not a size: write a number and a unit, like '512MiB' or '2GB'"
            )
        count = float(match[1]) * unit
        if not match[2] and count:
            raise InvalidOptionError(
                f"{name}={size!r} has no unit: bytes or GB? write '{size.strip()} B' or "
                f"'{size.strip()} GB'; a number that is not a text is gigabytes"
            )
    else:
        count = float(size) * GB
    if not math.isfinite(count) or count < 0 or count > MAX_BYTES:
        raise InvalidOptionError(f"{name}={size!r} must lie between 0 and {MAX_BYTES} bytes")
    if not isinstance(size, str) and size > MOST_GIGABYTES:
        raise InvalidOptionError(
            f"{name}={size!r} is {format_size(count)}, because a number is gigabytes: bytes or GB? "
            f"if it means {format_size(size)}, write {size / GB:g}, or the text '{size} B'"
        )
    return round(count)


def share_of(size: object, auto: float) -> float | None:
    """Return the share that a text like `"50%"` means, `auto` for `"auto"`; None for a size."""
    if not isinstance(size, str):
        return None
    if size.strip().lower() == "auto":
        return auto
    match = _SHARE.fullmatch(size)
    return None if match is None else float(match[1]) / 100


def limit_words(count: int) -> str:
    """Return the size of a tier as text, also for a tier without a limit."""
    return "no limit" if count > MAX_BYTES // 2 else format_size(count)


def format_size(count: int | float) -> str:
    """Return a byte count as text with a unit, in powers of ten."""
    size = float(count)
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if abs(size) < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} PB"


def format_seconds(value: float | None) -> str:
    """Return a time as text in a suitable unit; "n/a" for None or NaN."""
    if value is None or math.isnan(value):
        return "n/a"
    for unit, factor in (("µs", 1e6), ("ms", 1e3)):
        if value * factor < 1000:
            return f"{value * factor:.3g} {unit}"
    return f"{value:.3g} s"
