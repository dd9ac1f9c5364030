"""The codecs of builtin types that contain no other values: numbers, text, bytes, dates, paths.

Most types are a row of a table, with the name in the format and two functions. All of them are
immutable except `bytearray` and `memoryview`.
"""

from __future__ import annotations

import datetime as dt
import decimal
import fractions
import pathlib
import sys
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any, NamedTuple

from memories.codecs.base import Codec, Parts, Sharing
from memories.codecs.buffers import is_utf8, view_bytes
from memories.codecs.expect import expect, expect_fields
from memories.codecs.pickled import PickleCodec
from memories.errors import CorruptDataError, UnsupportedTypeError

INT_MIN, INT_MAX = -(2**63), 2**63 - 1


class ScalarCodec(Codec):
    """One row of the table as a codec; the value goes into `meta`."""

    def __init__(self, name: str, to_meta: Callable[[Any], Any], from_meta: Callable[[Any], Any]):
        self.name = name  # type: ignore[misc]
        self.sharing = Sharing.SHARED  # type: ignore[misc]
        self._to_meta = to_meta
        self._from_meta = from_meta

    def encode(self, value: Any) -> Parts:
        """Describe the value; what only code can describe, such as an odd time zone, is pickled."""
        try:
            return Parts(self.name, self._to_meta(value))
        except UnsupportedTypeError:
            return PickleCodec().encode(value)

    def decode(self, parts: Parts, *, writable: bool = False) -> Any:
        """Build the value again."""
        del writable
        return self._from_meta(parts.meta)


class BytesCodec(Codec):
    """`bytes`, as one buffer."""

    name = "bytes"
    sharing = Sharing.SHARED

    def encode(self, value: bytes) -> Parts:
        """Show the bytes."""
        return Parts(self.name, None, (memoryview(value),))

    def decode(self, parts: Parts, *, writable: bool = False) -> bytes:
        """Return the object that was shown, or a copy."""
        (buffer,) = parts.buffers
        whole = buffer.obj
        if type(whole) is bytes and len(whole) == buffer.nbytes:
            return whole
        return bytes(buffer)


class StrCodec(Codec):
    """`str`, as UTF-8 in which lone surrogates pass."""

    name = "str"
    sharing = Sharing.SHARED

    def encode(self, value: str) -> Parts:
        """Encode the text, which copies it."""
        return Parts(self.name, None, (memoryview(value.encode("utf-8", "surrogatepass")),))

    def decode(self, parts: Parts, *, writable: bool = False) -> str:
        """Decode the text."""
        (buffer,) = parts.buffers
        return str(buffer, "utf-8", "surrogatepass")


class BytearrayCodec(Codec):
    """`bytearray`, as one buffer; every reader gets a new one."""

    name = "bytearray"

    def encode(self, value: bytearray) -> Parts:
        """Show the bytes."""
        # While a view of it existed, the caller could not resize the bytearray.
        return Parts(self.name, None, (memoryview(bytes(value)),), frozenset({0}))

    def decode(self, parts: Parts, *, writable: bool = False) -> bytearray:
        """Copy the bytes."""
        (buffer,) = parts.buffers
        return bytearray(buffer)


class MemoryviewCodec(Codec):
    """`memoryview` of any format that the `struct` module knows; readers get a read-only view."""

    name = "memoryview"

    def encode(self, value: memoryview) -> Parts:
        """Show the bytes, C-contiguous."""
        if len(value.format.removeprefix("@")) != 1:
            raise UnsupportedTypeError(
                f"a memoryview of format {value.format!r} cannot be encoded: store an array of it"
            )
        meta = {"format": value.format, "shape": list(value.shape or ()), "order": sys.byteorder}
        if not value.nbytes and value.ndim != 1:
            raise UnsupportedTypeError(
                f"an empty memoryview of shape {value.shape} cannot be encoded: store an array"
            )
        if value.c_contiguous:
            return Parts(self.name, meta, (view_bytes(value),))
        return Parts(self.name, meta, (memoryview(value.tobytes()),), frozenset({0}))

    def decode(self, parts: Parts, *, writable: bool = False) -> memoryview:
        """Cast the bytes."""
        (buffer,) = parts.buffers
        meta = parts.meta
        if meta["order"] != sys.byteorder:
            raise UnsupportedTypeError("a memoryview of a machine with another byte order")
        view = buffer if writable else buffer.toreadonly()
        if meta["format"] in ("B", "@B") and meta["shape"] == [view.nbytes]:
            return view
        if not view.nbytes:
            return view.cast(meta["format"])
        return view.cast(meta["format"], meta["shape"])


class ScalarRow(NamedTuple):
    """A scalar type, its name in the format, and the functions that encode and decode it."""

    kind: type
    name: str
    to_meta: Callable[[Any], Any]
    from_meta: Callable[[Any], Any]


def _same(value: Any) -> Any:
    return value


def _expect(kind: type) -> Callable[[Any], Any]:
    return lambda meta: expect(meta, kind, f"a {kind.__name__}")


def _ints(meta: Any, count: int, what: str) -> list[int]:
    """Return a list of so many small numbers."""
    return [expect(number, int, what) for number in expect_fields(meta, count, what)]


def _int_to_meta(value: int) -> int | bytes:
    if INT_MIN <= value <= INT_MAX:
        return value
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)


def _int_from_meta(meta: Any) -> int:
    if type(meta) is bytes:
        return int.from_bytes(meta, "little", signed=True)
    checked: int = _expect(int)(meta)
    return checked


def _text_to_meta(value: Any) -> str:
    text = str(value)
    if not is_utf8(text):
        raise UnsupportedTypeError(f"{value!r} cannot be encoded as UTF-8")
    return text


def _zone_to_meta(zone: dt.tzinfo | None) -> Any:
    if zone is None:
        return None
    if type(zone) is dt.timezone:
        offset, name = zone.utcoffset(None), zone.tzname(None)
        custom = name if dt.timezone(offset).tzname(None) != name else None
        return [*_delta_to_meta(offset), None if custom is None else _text_to_meta(custom)]
    if type(zone) is zoneinfo.ZoneInfo and zone.key is not None:
        return zone.key
    raise UnsupportedTypeError(f"the time zone {zone!r} has no plain description")


def _zone_from_meta(meta: Any) -> dt.tzinfo | None:
    if meta is None:
        return None
    if type(meta) is str:
        return zoneinfo.ZoneInfo(meta)
    *delta, name = expect_fields(meta, 4, "a time zone")
    offset = _delta_from_meta(delta)
    if name is not None:
        return dt.timezone(offset, expect(name, str, "the name of a time zone"))
    return dt.timezone(offset) if offset else dt.UTC


def _delta_to_meta(value: dt.timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _delta_from_meta(meta: Any) -> dt.timedelta:
    return dt.timedelta(*_ints(meta, 3, "a timedelta"))


def _clock(value: dt.time | dt.datetime) -> list[Any]:
    tail = [value.hour, value.minute, value.second, value.microsecond, value.fold]
    return [*tail, _zone_to_meta(value.tzinfo)]


def _datetime_to_meta(value: dt.datetime) -> list[Any]:
    return [value.year, value.month, value.day, *_clock(value)]


def _datetime_from_meta(meta: Any) -> dt.datetime:
    *fields, fold, zone = expect_fields(meta, 9, "a datetime")
    _ints([*fields, fold], 8, "a datetime")
    return dt.datetime(*fields).replace(fold=fold, tzinfo=_zone_from_meta(zone))


def _time_from_meta(meta: Any) -> dt.time:
    *fields, fold, zone = expect_fields(meta, 6, "a time")
    _ints([*fields, fold], 5, "a time")
    return dt.time(*fields).replace(fold=fold, tzinfo=_zone_from_meta(zone))


def _big(values: list[int]) -> list[int | bytes]:
    return [_int_to_meta(value) for value in values]


def _range_from_meta(meta: Any) -> range:
    return range(*map(_int_from_meta, expect_fields(meta, 3, "a range")))


def _fraction_from_meta(meta: Any) -> fractions.Fraction:
    """Return a fraction of two numbers that have no common divisor, as they were stored.

    To look for a divisor of two numbers of a megabyte takes a minute. If the stored ones have one,
    the fraction is equal to no other, and harmless.
    """
    numerator, denominator = map(_int_from_meta, expect_fields(meta, 2, "a fraction"))
    if denominator < 1:
        raise CorruptDataError("a stored fraction has no positive denominator")
    value = fractions.Fraction(0)
    for name, number in (("_numerator", numerator), ("_denominator", denominator)):
        setattr(value, name, number)  # Python 3.11 and 3.12 differ in how to skip the search.
    return value


def _complex_from_meta(meta: Any) -> complex:
    real, imaginary = expect_fields(meta, 2, "a complex")
    return complex(expect(real, float, "a complex"), expect(imaginary, float, "a complex"))


def _slice_to_meta(value: slice) -> list[Any]:
    fields = [value.start, value.stop, value.step]
    if not all(field is None or type(field) is int for field in fields):
        raise UnsupportedTypeError("a slice of anything but int and None")
    return [None if field is None else _int_to_meta(field) for field in fields]


def _slice_from_meta(meta: Any) -> slice:
    return slice(
        *(
            None if field is None else _int_from_meta(field)
            for field in expect_fields(meta, 3, "a slice")
        )
    )


def _path(kind: type[pathlib.PurePath]) -> Callable[[Any], Any]:
    return lambda meta: kind(_expect(str)(meta))


_NO_ZONE = ScalarRow(
    dt.date,
    "date",
    lambda d: [d.year, d.month, d.day],
    lambda meta: dt.date(*_ints(meta, 3, "a date")),
)

ROWS: tuple[ScalarRow, ...] = (
    ScalarRow(type(None), "none", _same, _expect(type(None))),
    ScalarRow(bool, "bool", _same, _expect(bool)),
    ScalarRow(int, "int", _int_to_meta, _int_from_meta),
    ScalarRow(float, "float", _same, _expect(float)),
    ScalarRow(complex, "complex", lambda z: [z.real, z.imag], _complex_from_meta),
    ScalarRow(type(...), "ellipsis", lambda _: None, lambda _: ...),
    ScalarRow(type(NotImplemented), "notimplemented", lambda _: None, lambda _: NotImplemented),
    ScalarRow(decimal.Decimal, "decimal", str, lambda meta: decimal.Decimal(_expect(str)(meta))),
    ScalarRow(
        fractions.Fraction,
        "fraction",
        lambda f: _big([f.numerator, f.denominator]),
        _fraction_from_meta,
    ),
    ScalarRow(dt.datetime, "datetime", _datetime_to_meta, _datetime_from_meta),
    _NO_ZONE,
    ScalarRow(dt.time, "time", _clock, _time_from_meta),
    ScalarRow(dt.timedelta, "timedelta", _delta_to_meta, _delta_from_meta),
    ScalarRow(dt.timezone, "timezone", _zone_to_meta, _zone_from_meta),
    ScalarRow(zoneinfo.ZoneInfo, "zoneinfo", _zone_to_meta, _zone_from_meta),
    ScalarRow(
        uuid.UUID,
        "uuid",
        lambda u: u.bytes,
        lambda meta: uuid.UUID(bytes=expect(meta, bytes, "a UUID")),
    ),
    ScalarRow(range, "range", lambda r: _big([r.start, r.stop, r.step]), _range_from_meta),
    ScalarRow(slice, "slice", _slice_to_meta, _slice_from_meta),
    ScalarRow(pathlib.PosixPath, "path.posix", _text_to_meta, _path(pathlib.Path)),
    ScalarRow(
        pathlib.PurePosixPath, "path.pure-posix", _text_to_meta, _path(pathlib.PurePosixPath)
    ),
    ScalarRow(
        pathlib.PureWindowsPath, "path.pure-windows", _text_to_meta, _path(pathlib.PureWindowsPath)
    ),
)

CODECS: dict[type, Codec] = {
    **{row.kind: ScalarCodec(row.name, row.to_meta, row.from_meta) for row in ROWS},
    bytes: BytesCodec(),
    str: StrCodec(),
    bytearray: BytearrayCodec(),
    memoryview: MemoryviewCodec(),
}
NAMES = frozenset(codec.name for codec in CODECS.values())
IMMUTABLE = frozenset(kind for kind, codec in CODECS.items() if codec.sharing is Sharing.SHARED)
