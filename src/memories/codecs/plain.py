"""Own plain values: builtin types, lists and dicts of them, and small arrays.

Their encoding cannot fail, so no codec is asked before they are kept in RAM: a list or a dict is
held as MessagePack, from which each reader builds an object of its own, until it leaves RAM.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import msgspec
import numpy as np

from memories.codecs import registry
from memories.codecs.arrays import SMALL_BYTES
from memories.codecs.base import Parts
from memories.codecs.nested import TREE
from memories.model.entry import ArrayEntry, Entry, PackedEntry, SharedEntry

Owned = tuple[type[Entry], Any, int]

_SHARED: Final = frozenset({type(None), bool, int, float, complex, str, bytes})
_containers = {list, dict}
_arrays = {np.ndarray}
# Of these every size and every content can be packed exactly, except an int of more than 64 bits.
_NUMBERS: Final = frozenset({type(None), bool, int, float})
_DTYPES: Final = tuple(np.dtype(code) for code in "?bBhHiIlLqQefdFD")
# By identity: a dtype with metadata is equal to the plain one, and must be kept.
_ORDINARY: Final = frozenset(map(id, _DTYPES))
_MAX_DEPTH: Final = 16  # Reading needs as many frames of the stack, wherever the reader is.
_MAX_TEXT: Final = 256
_PLAIN_NODES: Final = frozenset({"list", "dict"})
_pack: Final = msgspec.msgpack.Encoder().encode


def own_plain(value: Any) -> Owned | None:
    """Return the kind of entry that holds `value`, the payload of the entry, and its bytes.

    It is the short way of `Payload.of(value)` for RAM. The payload cannot be changed by the caller,
    can always be encoded, and needs no class of the user. The bytes are those of the payload alone,
    without `ENTRY_BYTES`. None means that the value takes the general way, `own_value`.
    """
    kind = type(value)
    if kind in _SHARED:
        return SharedEntry, value, sys.getsizeof(value)
    if kind in _containers:
        packed = _packed(value)
        return None if packed is None else (PackedEntry, packed, sys.getsizeof(packed))
    if kind in _arrays and 0 < value.nbytes <= SMALL_BYTES:
        return _own_array(value)
    return None


def own_plain_parts(parts: Parts) -> Owned | None:
    """Return what `own_plain` returns, for the parts of a frame.

    They are decoded only if no class of the user is needed for it: a value whose class is missing
    can be held in RAM, although it cannot be read.

    Raises:
        CorruptDataError: the parts are damaged.
    """
    if parts.codec != TREE or parts.buffers:
        return None
    for node in parts.meta["nodes"]:
        if node[0] not in _PLAIN_NODES:
            return None
    return own_plain(registry.decode(parts))


def leave_to_codec(kind: type) -> None:
    """Let values of `kind` take the general way: a program has registered a codec of its own."""
    _containers.discard(kind)
    _arrays.discard(kind)


def _own_array(value: Any) -> Owned | None:
    """Return a small array as a read-only copy, which is laid out as `arrays.over` does it."""
    dtype = value.dtype
    if id(dtype) not in _ORDINARY or not value.flags.c_contiguous:
        return None
    master = np.frombuffer(value.tobytes(), np.uint8).view(dtype)
    if value.ndim != 1:
        master = master.reshape(value.shape)
    return ArrayEntry, master, master.nbytes


def _packed(value: Any) -> bytes | None:
    """Return a list or dict as MessagePack, or None if that would not give back the very same.

    What is refused: other types, subclasses included, containers that occur twice or contain
    themselves, texts that are cheaper to share than to copy, and deep nesting.
    """
    level, count = [value], 1
    seen = {id(value)}
    for _ in range(_MAX_DEPTH):
        below: list[Any] = []
        for container in level:
            items = container
            if type(container) is dict:
                for key in container:
                    if type(key) is not str:
                        return None
                items = container.values()
            for item in items:
                kind = type(item)
                if kind in _NUMBERS:
                    continue
                if kind is str or kind is bytes:
                    if len(item) > _MAX_TEXT:
                        return None
                elif kind is dict or kind is list:
                    below.append(item)
                else:
                    return None
        if not below:
            break
        count += len(below)
        seen.update(map(id, below))
        if len(seen) != count:
            return None
        level = below
    else:
        return None
    try:
        return _pack(value)
    except (OverflowError, UnicodeEncodeError, RecursionError):
        return None  # An int of more than 64 bits, a lone surrogate, or hardly any stack is left.
