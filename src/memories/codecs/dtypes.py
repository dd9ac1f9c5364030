"""Describe NumPy dtypes as plain data, and build them from it.

A description is a string, a name of `ml_dtypes`, or a list of fields with offsets. Strings from a
frame are matched against a pattern before `np.dtype` gets them.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from memories.codecs.buffers import is_utf8
from memories.errors import CorruptDataError, UnsupportedTypeError
from memories.foundation.optional_imports import package

_FLAT = re.compile(r"[<>|](?:[?biufcSUV]\d{1,10}|[mM]8(?:\[\d{0,10}[A-Za-zμ]{1,2}\])?)")
_ML_NAMES = re.compile(r"(?:bfloat16|float\d\w{1,14}|u?int[124])")


def describe(dtype: np.dtype[Any]) -> Any:
    """Return `dtype` as strings, ints and lists.

    Raises:
        UnsupportedTypeError: it has objects or metadata, or is of an unknown kind.
    """
    if dtype.hasobject or dtype.metadata:
        raise UnsupportedTypeError(f"dtype {dtype!r} has no plain description")
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return {"base": describe(base), "shape": list(shape)}
    if dtype.names is not None:
        return _describe_fields(dtype)
    if dtype.type.__module__ == "numpy" and _FLAT.fullmatch(dtype.str):
        return dtype.str
    if dtype.type.__module__ == "ml_dtypes" and _ML_NAMES.fullmatch(dtype.name):
        return dtype.name
    raise UnsupportedTypeError(f"dtype {dtype!r} has no plain description")


def build(description: Any) -> np.dtype[Any]:
    """Return the dtype that `describe` described.

    Raises:
        CorruptDataError: the description is not valid.
    """
    try:
        dtype: np.dtype[Any] = _build(description)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError, RecursionError) as bad:
        raise CorruptDataError(f"{str(description)[:80]!r} does not describe a dtype") from bad
    if dtype.hasobject:
        raise CorruptDataError("a stored dtype may not hold objects")
    return dtype


def _describe_fields(dtype: np.dtype[Any]) -> dict[str, Any]:
    fields = []
    assert dtype.names is not None and dtype.fields is not None
    for name in dtype.names:
        field = dtype.fields[name]
        title = field[2] if len(field) > 2 else None
        if title is not None and type(title) is not str:
            raise UnsupportedTypeError(f"the title {title!r} of a field must be a str")
        if not is_utf8(name) or not is_utf8(title or ""):
            raise UnsupportedTypeError(f"the name of the field {name!r} has lone surrogates")
        fields.append([name, describe(field[0]), field[1], title])
    return {
        "fields": fields,
        "itemsize": dtype.itemsize,
        "aligned": dtype.isalignedstruct,
        "record": dtype.type is np.record,
    }


def _build(description: Any) -> np.dtype[Any]:
    if isinstance(description, str):
        return _build_flat(description)
    if "base" in description:
        return np.dtype((_build(description["base"]), tuple(description["shape"])))
    names, formats, offsets, titles = (
        zip(*description["fields"], strict=True) if description["fields"] else ((), (), (), ())
    )
    spec: Any = {
        "names": list(names),
        "formats": [_build(text) for text in formats],
        "offsets": list(offsets),
        "itemsize": description["itemsize"],
    }
    if any(title is not None for title in titles):
        spec["titles"] = list(titles)
    dtype = np.dtype(spec, align=bool(description["aligned"]))
    record: np.dtype[Any] = np.dtype((np.record, dtype))
    return record if description["record"] else dtype


def _build_flat(text: str) -> np.dtype[Any]:
    if _FLAT.fullmatch(text):
        return np.dtype(text)
    if _ML_NAMES.fullmatch(text):
        named: np.dtype[Any] = np.dtype(vars(package("ml_dtypes"))[text])
        return named
    raise ValueError(text)
