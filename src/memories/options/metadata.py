"""What a caller says about a value: taken as it is, found by the same words, and given back.

Not values: no arrays and nothing that runs code, and small. The one idea: what msgpack knows is
written as it is; of anything else its codec's description is, as one extension of msgpack.
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
TYPED = 1  # The code of the extension: a list of a type's name and what it is made of.
_KINDS = "None, bool, numbers, str, bytes, dates, times, UUIDs, Decimals, enums, NumPy scalars and "
_KINDS += "lists, tuples, sets and dicts of such"
_PLAIN = frozenset({type(None), bool, float, bytes})
_DAMAGE = (msgspec.MsgspecError, KeyError, TypeError, ValueError, RecursionError)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


@dataclass(frozen=True, slots=True)
class Unknown:
    """A word of a type that is not there, in place of the word; find it by what it was."""

    reason: str


def pack(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return a private copy of `metadata`, as the journal writes it.

    Raises:
        InvalidOptionError: it is too large, or something in it is no word; the message says what.
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
    """Return what was packed, in objects of its own.

    A word whose type cannot be had, for its class is not imported here, is an `Unknown`.

    Raises:
        CorruptDataError: it was never packed.
    """
    return {name: _unpack(word) for name, word in packed.items()}


def question(metadata: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], bool]:
    """Return what tells whether packed metadata has every one of these items.

    Words are the same if they are equal in Python, or were packed alike: NaN finds NaN.

    Raises:
        InvalidOptionError: some word can be in no metadata.
    """
    packed = pack(metadata)
    wanted = [(name, word, metadata[name], _encode(word)) for name, word in packed.items()]

    def answers(known: Mapping[str, Any]) -> bool:
        for name, word, value, encoded in wanted:
            if name not in known:
                return False
            other = known[name]
            if other != word and _encode(other) != encoded and not _equal(_unpack(other), value):
                return False
        return True

    return answers


def _equal(left: Any, right: Any) -> bool:
    try:
        return bool(left == right)
    except (ArithmeticError, TypeError, ValueError):
        return False  # A signalling NaN, say, which equals nothing.


def _pack(word: Any, where: str) -> Any:
    kind = type(word)
    if kind in _PLAIN or (kind is int and INT_MIN <= word <= INT_MAX):
        return word
    if kind is str:
        if not is_utf8(word):
            raise InvalidOptionError(f"{where} holds a str that is no Unicode: {word!r:.60}")
        return word
    if kind is list:
        return [_pack(item, f"{where}[{at}]") for at, item in enumerate(word)]
    if kind is dict and all(type(name) is str and is_utf8(name) for name in word):
        return {name: _pack(item, f"{where}[{name!r}]") for name, item in word.items()}
    return msgspec.msgpack.Ext(TYPED, _encode(_typed(word, kind, where)))


def _typed(word: Any, kind: type, where: str) -> list[Any]:
    """Return the name of a type, and what the word is made of."""
    if kind is dict:
        pairs = [(_pack(name, where), _pack(item, where)) for name, item in word.items()]
        return ["dict", pairs]
    if kind is tuple:
        return ["tuple", [_pack(item, f"{where}[{at}]") for at, item in enumerate(word)]]
    if kind in (set, frozenset):
        # Equal sets are packed alike, whatever order they have.
        return [kind.__name__, sorted((_pack(item, where) for item in word), key=_encode)]
    try:
        parts = codecs.encode(word)
        immutable = codecs.sharing(word) is codecs.Sharing.SHARED
    except UnsupportedTypeError:
        immutable = False
    if not immutable or codecs.carries_code(parts.codec):
        raise InvalidOptionError(
            f"{where} is a {kind.__module__}.{kind.__qualname__}, and can be {_KINDS}: say it in "
            "these, or store it under a key of its own"
        )
    return [parts.codec, parts.meta, [bytes(buffer) for buffer in parts.buffers]]


def _unpack(word: Any) -> Any:
    kind = type(word)
    if kind is list:
        return [_unpack(item) for item in word]
    if kind is dict:
        return {name: _unpack(item) for name, item in word.items()}
    return _read(word) if kind is msgspec.msgpack.Ext else word


def _read(word: msgspec.msgpack.Ext) -> Any:
    try:
        if word.code != TYPED:
            raise ValueError(f"extension {word.code}")
        name, content, *buffers = _decode(word.data)
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
    words = [_unpack(item) for item in content]
    if not all(hashes_safely(item) or isinstance(item, Unknown) for item in words):
        raise CorruptDataError("what stored metadata holds cannot be hashed safely")
    return words


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
