"""Packs, unpacks and searches the metadata of values.

Metadata is small and contains no arrays and nothing that runs code. Types that msgpack knows are
packed as they are; any other value is packed as an extension, which its codec describes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec

from memories import codecs
from memories.codecs.buffers import is_utf8
from memories.codecs.containers import hashes_safely
from memories.codecs.scalars import INT_MAX, INT_MIN
from memories.errors import (
    CorruptDataError,
    InvalidOptionError,
    MemoriesError,
    UnsupportedTypeError,
)
from memories.foundation.optional_imports import MissingPackageError

MAX_METADATA_BYTES = 65_536
TYPED = 1  # The code of the extension: a list of the name of a type and its parts.
_KINDS = "None, bool, numbers, str, bytes, dates, times, UUIDs, Decimals, enums, NumPy scalars and "
_KINDS += "lists, tuples, sets and dicts of such"
_PLAIN = frozenset({type(None), bool, float, bytes})
_DAMAGE = (msgspec.MsgspecError, KeyError, TypeError, ValueError, RecursionError)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


@dataclass(frozen=True, slots=True)
class Unknown:
    """Stands for a value whose type is not available; `find` still finds the value."""

    reason: str


def pack(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return a private copy of `metadata`, in the form in which it is stored.

    Raises:
        InvalidOptionError: it is too large, or holds a value of a type that cannot be packed.
    """
    try:
        packed = _pack(dict(metadata), "metadata")
        nbytes = len(_encode(packed))
    except RecursionError as error:
        raise InvalidOptionError("metadata is nested too deeply, or holds itself") from error
    except (TypeError, ValueError) as error:
        if isinstance(error, MemoriesError):
            raise
        raise InvalidOptionError(f"metadata must map str to {_KINDS}: {error}") from error
    if nbytes > MAX_METADATA_BYTES:
        raise InvalidOptionError(
            f"metadata takes {nbytes} bytes, at most {MAX_METADATA_BYTES} are allowed; "
            "store larger things under a key of their own"
        )
    if type(packed) is not dict:
        raise InvalidOptionError("metadata must have str as its names")
    return packed


def unpack(packed: Mapping[str, Any]) -> dict[str, Any]:
    """Return packed metadata as new objects.

    A value whose class is not imported becomes an `Unknown`.

    Raises:
        CorruptDataError: it is not packed metadata.
    """
    return {name: _unpack(item) for name, item in packed.items()}


def matcher(metadata: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], bool]:
    """Return a function that tells whether packed metadata has all of these items.

    Values match if they are equal in Python or have the same packed form: NaN matches NaN.

    Raises:
        InvalidOptionError: a value is of a type that cannot be packed.
    """
    packed = pack(metadata)
    wanted = [(name, item, metadata[name], _encode(item)) for name, item in packed.items()]

    def matches(known: Mapping[str, Any]) -> bool:
        for name, item, value, encoded in wanted:
            if name not in known:
                return False
            other = known[name]
            if other != item and _encode(other) != encoded and not _equal(_unpack(other), value):
                return False
        return True

    return matches


def _equal(left: Any, right: Any) -> bool:
    try:
        return bool(left == right)
    except (ArithmeticError, TypeError, ValueError):
        return False  # A signalling NaN, for example, which cannot be compared.


def _pack(value: Any, where: str) -> Any:
    kind = type(value)
    if kind in _PLAIN or (kind is int and INT_MIN <= value <= INT_MAX):
        return value
    if kind is str:
        if not is_utf8(value):
            raise InvalidOptionError(
                f"{where} holds a str that is not valid Unicode: {value!r:.60}"
            )
        return value
    if kind is list:
        return [_pack(item, f"{where}[{at}]") for at, item in enumerate(value)]
    if kind is dict and all(type(name) is str and is_utf8(name) for name in value):
        return {name: _pack(item, f"{where}[{name!r}]") for name, item in value.items()}
    return msgspec.msgpack.Ext(TYPED, _encode(_typed(value, kind, where)))


def _typed(value: Any, kind: type, where: str) -> list[Any]:
    """Return the name of a type, and the parts of a value."""
    if kind is dict:
        pairs = [(_pack(name, where), _pack(item, where)) for name, item in value.items()]
        return ["dict", pairs]
    if kind is tuple:
        return ["tuple", [_pack(item, f"{where}[{at}]") for at, item in enumerate(value)]]
    if kind in (set, frozenset):
        # Sorted, so that equal sets have the same packed form.
        return [kind.__name__, sorted((_pack(item, where) for item in value), key=_encode)]
    try:
        parts = codecs.encode(value)
        immutable = codecs.sharing(value) is codecs.Sharing.SHARED
    except UnsupportedTypeError:
        immutable = False
    if not immutable or codecs.carries_code(parts.codec):
        raise InvalidOptionError(
            f"{where} is a {kind.__module__}.{kind.__qualname__}, and can be {_KINDS}: use one "
            "of these, or store it under a key of its own"
        )
    return [parts.codec, parts.meta, [bytes(buffer) for buffer in parts.buffers]]


def _unpack(packed: Any) -> Any:
    kind = type(packed)
    if kind is list:
        return [_unpack(item) for item in packed]
    if kind is dict:
        return {name: _unpack(item) for name, item in packed.items()}
    return _read(packed) if kind is msgspec.msgpack.Ext else packed


def _read(extension: msgspec.msgpack.Ext) -> Any:
    try:
        if extension.code != TYPED:
            raise ValueError(f"extension {extension.code}")
        name, content, *buffers = _decode(extension.data)
        build = _BUILD.get(name)
        if build is not None:
            return build(content)
        if codecs.carries_code(name):
            raise ValueError(f"a {name}")
        return codecs.decode(codecs.Parts(name, content, tuple(map(memoryview, *buffers))))
    except (UnsupportedTypeError, MissingPackageError) as error:
        return Unknown(str(error))
    except MemoriesError:
        raise
    except _DAMAGE as error:
        raise CorruptDataError(f"stored metadata is damaged: {error}") from error


def _hashable(content: list[Any]) -> list[Any]:
    values = [_unpack(item) for item in content]
    if not all(hashes_safely(item) or isinstance(item, Unknown) for item in values):
        raise CorruptDataError("stored metadata holds values that cannot be hashed safely")
    return values


_BUILD: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "tuple": lambda content: tuple(map(_unpack, content)),
        "set": lambda content: set(_hashable(content)),
        "frozenset": lambda content: frozenset(_hashable(content)),
        "dict": lambda content: dict(
            zip(
                _hashable([name for name, _ in content]),
                (_unpack(item) for _, item in content),
                strict=True,
            )
        ),
    }
)
