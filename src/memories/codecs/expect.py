"""Checks the fields of a stored description one by one, before anything is made of them.

What a description has in the place of a list could be a `range` of billions of items, and in the
place of an array an object whose class says how to convert it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, TypeVar

from memories.errors import CorruptDataError

Kind = TypeVar("Kind")
MAX_FREQUENCY = 100  # Characters; to parse a long text takes pandas time in its square.


def expect(value: Any, kind: type[Kind], what: str) -> Kind:
    """Return `value` if it is of exactly this type.

    Raises:
        CorruptDataError: it is anything else; the message says that `what` is.
    """
    if type(value) is not kind:
        raise CorruptDataError(f"{what} is stored as a {type(value).__name__}")
    return value


def expect_instance(value: Any, kind: type[Kind], what: str) -> Kind:
    """Return `value` if it is of this type, or of a subclass of it."""
    if not isinstance(value, kind):
        raise CorruptDataError(f"{what} is stored as a {type(value).__name__}")
    return value


def expect_fields(value: Any, count: int, what: str, most: int | None = None) -> list[Any]:
    """Return `value` if it is a list of `count` items, or of up to `most`."""
    found = expect(value, list, what)
    if not count <= len(found) <= (count if most is None else most):
        raise CorruptDataError(f"{what} is stored as a list of {len(found)} items, not {count}")
    return found


def expect_shape(value: Any, what: str) -> tuple[int, ...]:
    """Return a list of lengths as a tuple."""
    found = expect(value, list, what)
    if not all(type(extent) is int and extent >= 0 for extent in found):
        raise CorruptDataError(f"the shape of {what} is damaged")
    return tuple(found)


def expect_dict(value: Any, names: Sequence[str], what: str) -> dict[str, Any]:
    """Return `value` if it is a dict that has these names."""
    found = expect(value, dict, what)
    missing = [name for name in names if name not in found]
    if missing:
        raise CorruptDataError(f"{what} is stored without its {missing[0]}")
    return found


def expect_zone(value: Any) -> dt.tzinfo | None:
    """Return a time zone or None: pandas would open the file that a text names."""
    if value is not None and not isinstance(value, dt.tzinfo):
        raise CorruptDataError(f"a time zone is stored as a {type(value).__name__}")
    return value


def expect_frequency(value: Any, offset: type) -> Any:
    """Return the short text of a frequency, or an offset of pandas."""
    if type(value) is str and len(value) <= MAX_FREQUENCY:
        return value
    if not isinstance(value, offset):
        raise CorruptDataError(f"a frequency is stored as a {type(value).__name__} of another kind")
    return value
