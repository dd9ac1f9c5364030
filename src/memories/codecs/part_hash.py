"""Hashes arrays, the commonest containers and scalars in few steps, for `value_hash`.

Each function returns what the codec of the type would lead to: it is a shorter way to the same
hash. The module is compiled, and concerns exact types only.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np
from xxhash import xxh3_128, xxh3_128_digest

from memories.codecs import scalars
from memories.codecs.arrays import ORDINARY_DTYPES, is_ordinary
from memories.codecs.digests import WIDTH_BEFORE, hash_all, head_of, join
from memories.codecs.plain_hash import ATOMS, plain_hash
from memories.errors import UnsupportedTypeError

BLOCK_BYTES: Final = 1 << 18
_FEW: Final = 8  # Of more items the types are compared in one call, of less one by one.
_MOST_HEADS: Final = 512
_MOST_CLASSES: Final = 512
_SMALL: Final = 1 << 62  # Numbers below are written as they are.
_SORTED: Final = ({int}, {str}, {bytes})  # Types of items that all can be compared.
_IMMUTABLE: Final = scalars.IMMUTABLE
_ROWS: Final = {row.kind: (row.name.encode(), row.to_meta) for row in scalars.ROWS}
_NUMPY_SCALARS: Final = {dtype.type: dtype.str for dtype in ORDINARY_DTYPES}
_pack: Final = msgspec.msgpack.Encoder().encode
_array_heads: Final[dict[tuple[int, tuple[int, ...]], bytes]] = {}  # By the dtype and the shape.
# The fields of dataclasses whose values keep them in a dict, and for named tuples what stands for
# them. Bounded: it keeps the classes alive.
STRUCTURES: Final[dict[type, frozenset[str]]] = {}
_NAMED_TUPLE: Final = frozenset[str]()
# What stands before the hashes of values of these types.
_EMPTY: Final = join([b""])
_LIST: Final = head_of(b"list") + _EMPTY
_TUPLE: Final = head_of(b"tuple") + _EMPTY
_DICT: Final = head_of(b"dict") + _EMPTY
_TEXT: Final = head_of(b"str") + join([_pack(None)]) + WIDTH_BEFORE
_BYTES: Final = head_of(b"bytes") + join([_pack(None)]) + WIDTH_BEFORE
_DATACLASS: Final = head_of(b"dataclass") + WIDTH_BEFORE
_TUPLE_WITH_NAME: Final = head_of(b"namedtuple") + WIDTH_BEFORE
_ATOMS: Final = join([b"atoms"]) + WIDTH_BEFORE


def hash_part(hasher: Any, value: Any) -> bytes | None:
    """Return the hash of an ordinary array, a plain container or a scalar; None of anything else.

    The hashes of the items of a container come from `hasher`.
    """
    kind = type(value)
    if kind is np.ndarray:
        return hash_array(value) if is_ordinary(value) else None
    if kind is dict:
        return _hash_dict(hasher, value)
    if kind is list:
        return xxh3_128_digest(_LIST + join_items(hasher, value))
    if kind is tuple:
        return xxh3_128_digest(_TUPLE + join_items(hasher, list(value)))
    if kind is set:
        return _hash_set(hasher, b"set", value)
    if kind is frozenset:
        return _hash_set(hasher, b"frozenset", value)
    found = hash_scalar(value)
    if found is not None:
        return found
    if kind is type:
        definition: bytes = hasher.digest_definition(value)
        return definition
    fields = STRUCTURES.get(kind)
    return None if fields is None else _hash_structure(hasher, value, fields)


def note_structure(kind: type, fields: frozenset[str] | None) -> None:
    """Note that `kind` is a dataclass with these fields, all in a dict; None for a named tuple."""
    if len(STRUCTURES) >= _MOST_CLASSES:
        STRUCTURES.clear()
    STRUCTURES[kind] = _NAMED_TUPLE if fields is None else fields


def join_plain_parts(value: Any) -> bytes | None:
    """Return the joined hash of what a value of a class in `STRUCTURES` holds, if that is plain.

    `hash_structure` makes the hash of the value of it.
    """
    fields = STRUCTURES.get(type(value))
    if fields is _NAMED_TUPLE:
        return _join_atoms(list(value))
    state: dict[str, Any] = value.__dict__.copy()
    for name in state:
        if fields is None or name not in fields:
            return None  # It has other attributes, too.
    digest = plain_hash(state)
    return None if digest is None else WIDTH_BEFORE + digest


def hash_structure(kind: type, class_digest: bytes, joined: bytes) -> bytes:
    """Return the hash of a value of this class, from those of the class and of what it holds."""
    head = _TUPLE_WITH_NAME if STRUCTURES.get(kind) is _NAMED_TUPLE else _DATACLASS
    return xxh3_128_digest(head + class_digest + joined)


def _hash_structure(hasher: Any, value: Any, fields: frozenset[str]) -> bytes | None:
    if fields is _NAMED_TUPLE:
        class_digest = hasher.digest(type(value))
        return hash_structure(type(value), class_digest, join_items(hasher, list(value)))
    state: dict[str, Any] = value.__dict__.copy()
    for name in state:
        if name not in fields:
            return None  # It has other attributes, too.
    return hash_all(b"dataclass", [hasher.digest(type(value)), hasher.digest(state)])


def _hash_dict(hasher: Any, value: dict[Any, Any]) -> bytes | None:
    if not _are_all(_IMMUTABLE, value):
        return None  # To hash a key may run code of its class.
    keys, values = list(value), list(value.values())
    joined = join_items(hasher, keys) + _EMPTY + join_items(hasher, values)
    return xxh3_128_digest(_DICT + joined)


def _hash_set(hasher: Any, mark: bytes, value: Any) -> bytes | None:
    if not _are_all(_IMMUTABLE, value):
        return None
    return xxh3_128_digest(head_of(mark) + join_unordered(hasher, value))


def join_items(hasher: Any, items: list[Any]) -> bytes:
    """Return the joined hashes of several values, which are one where all are atoms."""
    joined = _join_atoms(items)
    if joined is not None:
        return joined
    return WIDTH_BEFORE.join([b"", *[hasher.digest(item) for item in items]])


def _join_atoms(items: list[Any]) -> bytes | None:
    if not _are_all(ATOMS, items):
        return None
    try:
        return _ATOMS + xxh3_128_digest(_pack(items))
    except (OverflowError, ValueError):
        return None  # Some number has more than 64 bits, some text is none, some bytes too many.


def join_unordered(hasher: Any, value: Any) -> bytes:
    """Return the joined hashes of the items of a set, in an order of their own."""
    if set(map(type, value)) in _SORTED:
        return join_items(hasher, sorted(value))
    return join(sorted([hasher.digest_set_item(item) for item in value]))


def _are_all(kinds: frozenset[type], items: Any) -> bool:
    """Return whether all items are exactly of these types."""
    if len(items) > _FEW:
        return kinds.issuperset(map(type, items))
    for item in items:  # noqa: SIM110 - a generator is not compiled to a loop.
        if type(item) not in kinds:
            return False
    return True


def hash_scalar(value: Any) -> bytes | None:
    """Return the hash of a number, a text, a date and the like; None if it has no row of its own.

    None is returned, too, if only code describes it, such as an odd time zone.
    """
    kind = type(value)
    if kind is str:
        return xxh3_128_digest(_TEXT + xxh3_128_digest(value.encode("utf-8", "surrogatepass")))
    if kind is bytes:
        return xxh3_128_digest(_BYTES + xxh3_128_digest(value))
    if kind is float:
        return hash_all(b"float", [_pack(value)])
    if kind is int:
        number: int = value
        if -_SMALL < number < _SMALL:
            return hash_all(b"int", [_pack(value)])
    row = _ROWS.get(kind)
    if row is not None:
        try:
            return hash_all(row[0], [_pack(row[1](value))])
        except UnsupportedTypeError:
            return None
    dtype = _NUMPY_SCALARS.get(kind)
    if dtype is not None:
        return hash_all(b"numpy.scalar", [_pack({"dtype": dtype, "data": value.tobytes()})])
    return None


def hash_array(value: Any) -> bytes:
    """Return the hash of an array of an ordinary dtype."""
    known = (id(value.dtype), value.shape)
    head = _array_heads.get(known)
    if head is None:
        if len(_array_heads) >= _MOST_HEADS:
            _array_heads.clear()
        head = _array_heads[known] = array_head(value.dtype.str, value.shape)
    try:
        digest = xxh3_128_digest(value)
    except ValueError:  # It has gaps, or another order.
        digest = _hash_scattered(value)
    return xxh3_128_digest(head + digest)


def array_head(dtype: Any, shape: tuple[int, ...]) -> bytes:
    """Return what is hashed of an array before the hash of its items."""
    return head_of(b"ndarray") + join([_pack([dtype, list(shape)])]) + WIDTH_BEFORE


def _hash_scattered(value: Any) -> bytes:
    """Hash the items in their order block by block: memory for all of them costs more than that."""
    rows = max(1, BLOCK_BYTES * len(value) // max(1, value.nbytes))
    hasher = xxh3_128()
    for start in range(0, len(value), rows):
        block: Any = np.ascontiguousarray(value[start : start + rows])
        hasher.update(block)
    return hasher.digest()
