"""Codecs of shapely geometries: WKB, and beside it what WKB cannot say.

WKB has no rings, and a point of NaN is an empty one there. GEOS, which reads WKB, trusts how deeply
collections are nested, and may trust how many points and parts there are; both is checked here.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np

from memories.codecs.allowance import spend, spend_steps
from memories.codecs.arrays import Array, expect_array
from memories.codecs.expect import expect, expect_fields
from memories.codecs.nested import StructureCodec
from memories.codecs.registry import add
from memories.errors import CorruptDataError, UnsupportedTypeError
from memories.foundation.optional_imports import package

_POINT, _LINE, _RING, _POLYGON, _MANY_POINTS, _COLLECTION = 0, 1, 2, 3, 4, 7  # Of shapely.
_COLLECTIONS: Final = {_MANY_POINTS: "multipoints", _COLLECTION: "geometrycollections"}
_Z, _M, _SRID = 0x80000000, 0x40000000, 0x20000000
_HEAD: Final = struct.Struct("<BI")
_COUNT: Final = struct.Struct("<I")
_MAX_DEPTH = 64
# Of a geometry, which may be a part of many stored lists: its memory, and the time to make it.
_PART_NBYTES, _PART_STEPS = 512, 100
_POINT_NBYTES, _HEAD_NBYTES = 21, 5


def geometry_apart(value: Any) -> Any:
    """Return a geometry as WKB, or as a list if WKB would change it.

    Raises:
        UnsupportedTypeError: GEOS cannot read back what it writes, or it is nested too deeply.
    """
    found = _all_apart(np.array([value, None], object))
    return found[0]


def geometry_together(structure: Any) -> Any:
    """Return the geometry that `geometry_apart` took apart."""
    with np.errstate(invalid="ignore"):
        return _together(structure, 0)


def array_apart(values: Array) -> Any:
    """Return an array of geometries and None as lengths, the WKB of all, and the others by place.

    Raises:
        UnsupportedTypeError: an item is neither a geometry nor None, or cannot be stored.
    """
    # shapely locks an array while it works on it, so that of the caller, which other threads may
    # work on, must not be given to it.
    found = _all_apart(values.copy())
    whole = [item if type(item) is bytes else b"" for item in found]
    others = [[i, item] for i, item in enumerate(found) if type(item) is list]
    lengths = np.fromiter(map(len, whole), np.int64, len(whole))
    return [lengths, np.frombuffer(b"".join(whole), np.uint8), others]


def array_together(structure: Any) -> Array:
    """Return the array that `array_apart` took apart."""
    lengths, data, others = expect_fields(structure, 3, "an array of geometries")
    expect_array(lengths, "i"), expect_array(data, "u"), expect(others, list, "geometries")
    if lengths.dtype != np.int64 or data.dtype != np.uint8:
        raise CorruptDataError("an array of geometries is stored as other numbers")
    # Lengths are compared one by one: their sum could overflow.
    if len(lengths) and not 0 <= int(lengths.min()) <= int(lengths.max()) <= len(data):
        raise CorruptDataError("a geometry is longer than what is stored of all")
    counts = lengths.tolist()
    if sum(counts) != len(data):
        raise CorruptDataError("the stored geometries are not as long as they claim")
    spend(8 * len(counts), "an array of geometries")
    stored = memoryview(data)
    if not _are_points(lengths, data):
        at = 0
        for count in counts:
            if count:
                check_wkb(stored, at, at + count)
            at += count
    ends = np.cumsum(lengths).tolist()
    pieces: Array = np.empty(len(counts), object)
    pieces[:] = [
        bytes(stored[end - count : end]) if count else None
        for end, count in zip(ends, counts, strict=True)
    ]
    with np.errstate(invalid="ignore"):
        made: Array = package("shapely").from_wkb(pieces)
        for other in others:
            at, item = expect_fields(other, 2, "a geometry")
            if not 0 <= expect(at, int, "a place") < len(made):
                raise CorruptDataError("a geometry lies outside of its array")
            made[at] = _together(item, 0)
    return made


def check_wkb(data: memoryview | bytes, at: int, end: int) -> None:
    """Check that one geometry lies between these two places, and ends there.

    Raises:
        CorruptDataError: it does not, or is nested too deeply, or of another kind or byte order.
    """
    left = [1]  # How many geometries are still to come, at each level.
    try:
        while left:
            if not left[-1]:
                left.pop()
                continue
            left[-1] -= 1
            order, code = _HEAD.unpack_from(data, at)
            width = 8 * (2 + bool(code & _Z) + bool(code & _M))
            at += _HEAD.size + (4 if code & _SRID else 0)
            kind = code & ~(_Z | _M | _SRID)
            if order != 1 or not 1 <= kind <= 7:
                raise CorruptDataError("a stored geometry is of an unknown kind")
            if kind == 1:
                at += width
            elif kind == 2:
                at += _COUNT.size + width * _COUNT.unpack_from(data, at)[0]
            elif kind == 3:
                (rings,) = _COUNT.unpack_from(data, at)
                at += _COUNT.size
                while rings and at <= end:
                    at += _COUNT.size + width * _COUNT.unpack_from(data, at)[0]
                    rings -= 1
            else:
                left.append(_COUNT.unpack_from(data, at)[0])
                at += _COUNT.size
                if len(left) > _MAX_DEPTH:
                    raise CorruptDataError("a stored geometry is nested too deeply")
            if at > end:
                break
    except struct.error as error:
        raise CorruptDataError("a stored geometry ends too early") from error
    if at != end:
        raise CorruptDataError("a stored geometry does not end where it should")


def _are_points(lengths: Array, data: Array) -> bool:
    """Return whether all are points of two numbers, which need no further check."""
    if not len(data) or not bool(((lengths == _POINT_NBYTES) | (lengths == 0)).all()):
        return False
    heads = data.reshape(-1, _POINT_NBYTES)[:, :_HEAD_NBYTES]
    return bool((heads == np.frombuffer(_HEAD.pack(1, 1), np.uint8)).all())


def _all_apart(values: Array) -> list[Any]:
    """Return the WKB of each geometry, None for None, and a list for what WKB would change."""
    with np.errstate(invalid="ignore"):  # A NaN is no reason for a warning.
        return _parts_of(package("shapely"), values)


def _parts_of(shapely: Any, values: Array) -> list[Any]:
    try:
        kinds = shapely.get_type_id(values)
    except TypeError as error:
        raise UnsupportedTypeError(f"an array of geometries has other items: {error}") from error
    others: dict[int, Any] = {}
    points = np.isin(kinds, (_POINT, _MANY_POINTS))
    suspects = np.isin(kinds, (_RING, _COLLECTION))
    if _have_nan(shapely, values[points]):
        suspects |= points
    for i in np.flatnonzero(suspects).tolist():
        if _is_changed(shapely, values[i], 0):
            others[i] = _other_apart(shapely, values[i])
    plain = values
    if others:
        plain = values.copy()
        plain[list(others)] = None
    found: list[Any] = shapely.to_wkb(plain, include_srid=True, byte_order=1).tolist()
    if _have_nan(shapely, plain):
        _require_readable(shapely, found)
    for i, item in others.items():
        found[i] = item
    return found


def _have_nan(shapely: Any, values: Array) -> bool:
    return bool(np.isnan(shapely.get_coordinates(values)).any())


def _require_readable(shapely: Any, found: list[Any]) -> None:
    try:
        shapely.from_wkb(np.array(found, object))
    except shapely.errors.ShapelyError as error:
        raise UnsupportedTypeError(
            f"a geometry cannot be stored, for GEOS cannot read it back: {error}"
        ) from error


def _is_changed(shapely: Any, value: Any, depth: int) -> bool:
    """Return whether WKB would change a geometry: it has rings, or points of NaN."""
    kind = int(shapely.get_type_id(value))
    if depth >= _MAX_DEPTH - 1:
        raise UnsupportedTypeError(
            f"a geometry of more than {_MAX_DEPTH} levels of collections cannot be stored"
        )
    if kind == _RING:
        return True
    if kind == _POINT:
        return not shapely.is_empty(value) and _have_nan(shapely, np.array([value], object))
    parts = value.geoms if kind in _COLLECTIONS else ()
    # All parts are asked before the answer, for each may be nested too deeply.
    answers = [_is_changed(shapely, part, depth + 1) for part in parts]
    return any(answers)


def _other_apart(shapely: Any, value: Any) -> Any:
    if not _is_changed(shapely, value, 0):
        return shapely.to_wkb(value, include_srid=True, byte_order=1)
    kind, srid = int(shapely.get_type_id(value)), int(shapely.get_srid(value))
    if kind in _COLLECTIONS:
        return [kind, srid, [_other_apart(shapely, part) for part in value.geoms]]
    if getattr(value, "has_m", False):
        raise UnsupportedTypeError("a ring, or a point of NaN, with measures cannot be stored")
    return [kind, srid, shapely.get_coordinates(value, include_z=value.has_z)]


def _together(structure: Any, depth: int) -> Any:
    shapely = package("shapely")
    spend(_PART_NBYTES, "the parts of a geometry")
    spend_steps(_PART_STEPS, "the parts of a geometry")
    if type(structure) is bytes:
        check_wkb(structure, 0, len(structure))
        return shapely.from_wkb(structure)
    kind, srid, content = expect_fields(structure, 3, "a geometry")
    expect(kind, int, "a kind"), expect(srid, int, "the number of a reference system")
    if depth >= _MAX_DEPTH:
        raise CorruptDataError("a stored geometry is nested too deeply")
    made: Any
    if kind in _COLLECTIONS:
        parts = [_together(item, depth + 1) for item in expect(content, list, "parts")]
        made = getattr(shapely, _COLLECTIONS[kind])(np.array([*parts, None], object)[:-1])
    else:
        expect_array(content, "f", 2)
        if kind == _RING:
            made = shapely.linearrings(content) if len(content) else shapely.LinearRing()
        elif kind == _POINT and len(content) == 1:
            made = shapely.points(content)[0]
        else:
            raise CorruptDataError("a stored geometry is of an unknown kind")
    return shapely.set_srid(made, srid) if srid else made


def register() -> None:
    """Register the codec of all kinds of geometries."""
    shapely = package("shapely")
    names = (
        "Point", "LineString", "LinearRing", "Polygon", "MultiPoint", "MultiLineString",
        "MultiPolygon", "GeometryCollection",
    )  # fmt: skip
    codec = StructureCodec("shapely.geometry", geometry_apart, geometry_together)
    add(codec, *(getattr(shapely, name) for name in names))
