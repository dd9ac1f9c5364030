"""The content of values as a short text: equal for equal values of equal types, in any process.

Not a checksum of frames, and no proof against an adversary. The one idea: what a value is made of
is hashed with the type of each part, so that `1`, `1.0`, `True` and `"1"` all differ.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
import xxhash

from memories.codecs import dtypes, registry
from memories.codecs.arrays import bytes_of, is_flat
from memories.codecs.containers import container_of
from memories.codecs.memory import fetch
from memories.codecs.structures import field_values, name_of
from memories.codecs.tree import StructureCodec
from memories.errors import UnsupportedTypeError

_UNORDERED = {"dict", "set", "frozenset", "counter", "defaultdict"}


def content_hash(*values: Any) -> str:
    """Return 32 hexadecimal digits that depend on the types and contents of `values` only.

    Mappings and sets hash alike in any order, arrays in any memory layout. Tables, dataclasses and
    nested containers are hashed by their parts; functions and classes by their names; what has no
    codec by its pickle, which may miss that two such objects are equal, but never that they differ.

    Raises:
        UnsupportedTypeError: a value holds itself, is nested too deeply, or cannot be pickled.
    """
    try:
        return _hash_all(b"args", [_Hasher().digest(value) for value in values]).hex()
    except RecursionError as error:
        raise UnsupportedTypeError("the arguments are nested too deeply to be hashed") from error


class _Hasher:
    def __init__(self) -> None:
        self._open: set[int] = set()
        self._seen: dict[int, bytes] = {}
        self._alive: list[Any] = []

    def digest(self, value: Any) -> bytes:
        """Return the hash of one value; an object that occurs twice is hashed once."""
        identity = id(value)
        if identity in self._seen:
            return self._seen[identity]
        if identity in self._open:
            raise UnsupportedTypeError(
                f"a {type(value).__name__} that holds itself cannot be hashed"
            )
        self._open.add(identity)
        digest = self._compute(value)
        self._open.remove(identity)
        self._alive.append(value)
        self._seen[identity] = digest
        return digest

    def _compute(self, value: Any) -> bytes:
        if isinstance(value, np.ndarray) and type(value) is np.ndarray and is_flat(value):
            return _hash_array(value)
        if callable(value) and getattr(value, "__qualname__", None) is not None:
            return _hash_name(value)
        container = container_of(value)
        if container is not None:
            return self._hash_container(container, value)
        codec = registry.find(value)
        if isinstance(codec, StructureCodec):
            return _hash_all(codec.name.encode(), [self.digest(codec.take_apart(value))])
        parts = fetch(codec.encode(value))
        buffers = [_sum(buffer) for buffer in parts.buffers]
        return _hash_all(parts.codec.encode(), [msgspec.msgpack.encode(parts.meta), *buffers])

    def _hash_container(self, name: str, value: Any) -> bytes:
        if name == "dataclass":
            state = field_values(value) or {}
            return _hash_all(_type_name(value), [self.digest(state)])
        if name == "enum":
            return _hash_all(_type_name(value), [value._name_.encode()])
        if name == "namespace":
            return _hash_all(b"namespace", [self.digest(vars(value))])
        if isinstance(value, dict):
            items = [self.digest(k) + self.digest(v) for k, v in value.items()]
        else:
            items = [self.digest(item) for item in value]
        mark = _type_name(value) if name == "namedtuple" else name.encode()
        return _hash_all(mark, sorted(items) if name in _UNORDERED else items)


def _hash_array(value: np.ndarray[Any, Any]) -> bytes:
    meta = msgspec.msgpack.encode([dtypes.describe(value.dtype), list(value.shape)])
    return _hash_all(b"ndarray", [meta, _sum(bytes_of(np.ascontiguousarray(value)))])


def _hash_name(value: Any) -> bytes:
    bound = getattr(value, "__self__", None)
    if (
        "<locals>" in value.__qualname__
        or "<lambda>" in value.__qualname__
        or (bound is not None and not isinstance(bound, type) and not hasattr(bound, "__name__"))
    ):
        raise UnsupportedTypeError(
            f"{value.__qualname__} cannot be hashed: only functions and classes at the top level "
            "of a module are told apart by their names"
        )
    return _hash_all(b"name", [str(value.__module__).encode(), value.__qualname__.encode()])


def _type_name(value: Any) -> bytes:
    return ":".join(name_of(type(value)) or ()).encode()


def _sum(buffer: Any) -> bytes:
    return xxhash.xxh3_128_digest(buffer)


def _hash_all(mark: bytes, digests: Iterable[bytes]) -> bytes:
    hasher = xxhash.xxh3_128(struct.pack("<I", len(mark)) + mark)
    for digest in digests:
        hasher.update(struct.pack("<Q", len(digest)))
        hasher.update(digest)
    return hasher.digest()
