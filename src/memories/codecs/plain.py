"""Own plain values: builtin types, lists and dicts of them, and small arrays.

Their encoding cannot fail, so no codec is asked before they are kept in RAM: a list or a dict is
held as MessagePack, from which each reader builds an object of its own, until it leaves RAM.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import msgspec
import numpy as np

from memories.codecs import private_copy, registry
from memories.codecs.arrays import freeze_array, is_ordinary
from memories.codecs.base import Parts
from memories.codecs.containers import CONTAINERS
from memories.codecs.nested import TREE
from memories.codecs.private_copy import can_copy, copy_privately
from memories.model.entry import ArrayEntry, Entry, PackedEntry, PartsEntry, SharedEntry

Owned = tuple[type[Entry], Any, int]

_SHARED: Final = frozenset({type(None), bool, int, float, complex, str, bytes})
_MAX_DEPTH: Final = 16  # Each reader needs as many frames of the stack.
_MAX_TEXT: Final = 256  # Longer ones are cheaper to share than to copy.
# Of which a decoded value can be plain: the containers, and the codecs of leaves.
_PLAIN_NODES: Final = frozenset(
    {
        "list", "dict", "tuple", "set", "frozenset", "deque", "ordereddict", "defaultdict",
        "bytearray", "int", "complex", "str", "bytes", "ellipsis", "decimal", "date", "datetime",
        "time", "timedelta", "numpy.scalar", "ndarray",
    }
)  # fmt: skip
_pack: Final = msgspec.msgpack.Encoder().encode
_packed_kinds = {list, dict}
_array_kinds = {np.ndarray}


def own_plain(value: Any) -> Owned | None:
    """Return the kind of entry that holds `value`, the payload of the entry, and its bytes.

    It is the short way of `Payload.of(value)` for RAM. The payload cannot be changed by the caller,
    can always be encoded, and needs no class of the user. The bytes are those of the payload alone,
    without `ENTRY_BYTES`. None means that the value takes the general way, `own_value`.
    """
    kind = type(value)
    if kind in _SHARED:
        return SharedEntry, value, sys.getsizeof(value)
    if kind in _packed_kinds:
        packed = _packed(value)
        if packed is not None:
            return PackedEntry, packed, sys.getsizeof(packed)
    if kind in _array_kinds:
        if not is_ordinary(value):
            return None
        master = freeze_array(value)
        return ArrayEntry, master, master.nbytes
    return _own_copy(value)


def pack_container(value: Any) -> bytes | None:
    """Return a list or dict of plain values as MessagePack; None if that would not be exact."""
    return _packed(value) if type(value) in _packed_kinds else None


def is_plain_array(value: Any) -> bool:
    """Return whether `value` is an array of numbers in native order, and has our own codec."""
    return type(value) in _array_kinds and is_ordinary(value)


def own_plain_parts(parts: Parts, *, copy: bool = True) -> Owned | None:
    """Return what `own_plain` returns, for the parts of a frame.

    They are decoded only if no class of the user is needed for it: a value whose class is missing
    can be held in RAM, although it cannot be read. With `copy=False` nothing that has buffers is
    plain, since it would be copied.

    Raises:
        CorruptDataError: the parts are damaged.
    """
    if parts.codec != TREE or not (copy or not parts.buffers):
        return None
    places = 0
    for name, *arguments in parts.meta["nodes"]:
        if name not in _PLAIN_NODES:
            return None
        if name not in CONTAINERS:
            places += len(arguments[1])
    value = registry.decode(parts)
    if not places:
        return own_plain(value)
    # Two arrays over one buffer are tied.
    return _own_copy(value, may_be_tied=places > len(parts.buffers))


def leave_to_codec(kind: type) -> None:
    """Let values of `kind` take the general way: the program has registered a codec for it."""
    _packed_kinds.discard(kind)
    _array_kinds.discard(kind)
    private_copy.leave_to_codec(kind)


def _own_copy(value: Any, *, may_be_tied: bool = True) -> Owned | None:
    """Return a private copy of a nested value; an immutable value is kept as it is."""
    if not can_copy(type(value)):
        return None
    copied = copy_privately(value, may_be_tied=may_be_tied)
    if copied is None:
        return None
    content, nbytes = copied
    return SharedEntry if content is value else PartsEntry, content, nbytes


def _packed(value: Any) -> bytes | None:
    """Return a list or dict as MessagePack, or None if that would not give back the very same.

    What is refused: other types, subclasses included, containers that occur twice or contain
    themselves, texts that are cheaper to share than to copy, and deep nesting.
    """
    try:
        return _pack(value) if _can_pack(value, {id(value)}, _MAX_DEPTH) else None
    except (OverflowError, UnicodeEncodeError, RecursionError):
        return None  # An int of more than 64 bits, a lone surrogate, or hardly any stack is left.


def _can_pack(container: Any, seen: set[int], levels: int) -> bool:
    """Return whether MessagePack gives back a list or dict, of so many levels at most."""
    if not levels:
        return False
    if type(container) is dict:
        for key in container:
            if type(key) is not str:
                return False
        items: Any = container.values()
    else:
        items = container
    for item in items:
        kind = type(item)
        if kind is int or kind is float or item is None or kind is bool:
            continue
        if kind is str or kind is bytes:
            if len(item) > _MAX_TEXT:
                return False
        elif kind is dict or kind is list:
            identity = id(item)
            if identity in seen:
                return False
            seen.add(identity)
            if not _can_pack(item, seen, levels - 1):
                return False
        else:
            return False
    return True
