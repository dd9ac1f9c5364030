"""What readers of a value may share, and the HOST form that makes it safe.

Not a store: it holds one value. The one idea: immutable objects are kept, arrays are kept behind a
read-only exporter, everything else is kept as private parts and built anew for every reader.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from memories.codecs import arrays, registry, scalars, structures
from memories.codecs.base import Codec, Parts, Sharing, pack_meta
from memories.codecs.buffers import declare_owned, freeze
from memories.codecs.memory_size import size_of

_BUDGET = 10_000
_ALWAYS = frozenset({type(None), bool, int, float, complex, str, bytes})


class PrivateParts:
    """A mutable value held as private parts: each `open` gives a reader his own object."""

    __slots__ = ("_build", "parts")

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._build: Callable[[], Any] = registry.codec_named(parts.codec).share(parts)

    def open(self) -> Any:
        """Return a reader's own object.

        Raises:
            CorruptDataError: the parts came out of a frame that its writer had damaged.
        """
        return registry.as_corrupt(self.parts.codec, self._build)

    def lend(self) -> Any:
        """Return the value over the held memory itself, where others get a copy of it.

        Raises:
            CorruptDataError: the parts came out of a frame that its writer had damaged.
        """
        if type(registry.codec_named(self.parts.codec)).share is not Codec.share:
            return self.open()  # What is cheaper to clone than to decode is not lent.
        return registry.decode(self.parts._replace(given=self.parts.owned))

    @property
    def nbytes(self) -> int:
        """Return the bytes held."""
        return _whole(self.parts)

    def __repr__(self) -> str:
        return f"<Held {self.parts.codec}, {self.nbytes} B>"


def sharing(value: Any) -> Sharing:
    """Return what readers of `value` may share; immutability is looked for to any depth."""
    codec = registry.codec_for(value)
    if codec.sharing is Sharing.VIEW:
        return Sharing.VIEW if arrays.is_flat(value) else Sharing.FRESH
    if codec.sharing is Sharing.SHARED:
        # A record scalar is the one NumPy scalar that can be changed in place.
        return Sharing.FRESH if isinstance(value, np.void) else Sharing.SHARED
    if isinstance(value, tuple | frozenset) and codec.name == "tree":
        return Sharing.SHARED if _is_immutable(value) else Sharing.FRESH
    return Sharing.SHARED if _is_enum(value, codec.name) else Sharing.FRESH


def own_value(value: Any, *, copy: bool = True) -> tuple[Sharing, Any, int]:
    """Return how readers share `value`, what a volatile tier keeps of it, and its bytes.

    The payload is the object itself, a read-only master array, or a `Held`; of a value on a device,
    it is its `Parts` as they lie, which the caller still owns unless `copy` is False.

    Raises:
        UnsupportedTypeError: the value could never leave RAM.
    """
    if type(value) in _ALWAYS:
        return Sharing.SHARED, value, sys.getsizeof(value)
    shared = sharing(value)
    if shared is Sharing.VIEW:
        master = arrays.freeze_array(np.asarray(value), copy=copy)
        return shared, master, master.nbytes
    parts = registry.encode_in_place(value)
    pack_meta(parts.meta)  # Else it would fail only when it is written, in the background.
    if parts.far:
        return shared, parts if copy else declare_owned(parts), _whole(parts)
    if shared is Sharing.FRESH:
        held = PrivateParts(freeze(parts, copy=copy))
        return shared, held, held.nbytes
    if parts.buffers and copy and type(value) not in scalars.IMMUTABLE and parts.codec != "tree":
        frozen = freeze(parts)
        return shared, registry.decode(frozen), _whole(frozen)
    return shared, value, size_of(value)


def borrow_value(value: Any) -> tuple[Sharing, Any, int]:
    """Return what `hold` returns, over the caller's own memory.

    Good for as long as nobody writes to `value`, and only to be encoded: nothing is copied, and
    nothing is made read-only.

    Raises:
        UnsupportedTypeError: the value cannot be serialised.
    """
    if type(value) in _ALWAYS:
        return Sharing.SHARED, value, sys.getsizeof(value)
    shared = sharing(value)
    if shared is Sharing.VIEW:
        array = np.asarray(value)
        return shared, array, array.nbytes
    parts = registry.encode_in_place(value)
    if parts.far:
        return shared, parts, _whole(parts)
    if shared is Sharing.FRESH:
        return shared, PrivateParts(parts), _whole(parts)
    return shared, value, _whole(parts) if parts.buffers else size_of(value)


def own_parts(parts: Parts, *, copy: bool = True) -> tuple[Sharing, Any, int]:
    """Return what `hold` returns, of a value that came out of a frame.

    Buffers that nobody else holds are kept as they are: what was decompressed is not copied again.
    With `copy=False` all are.

    Raises:
        CorruptDataError: the parts are damaged.
    """
    shared = registry.codec_named(parts.codec).sharing
    if shared is Sharing.SHARED and (parts.codec in scalars.NAMES or not parts.buffers):
        value = registry.decode(parts)  # It is a copy of what it is made of.
        return shared, value, size_of(value)
    frozen = freeze(parts, copy=copy)
    if shared is Sharing.FRESH:
        held = PrivateParts(frozen)
        return shared, held, held.nbytes
    value = registry.decode(frozen)
    return shared, value, frozen.nbytes if shared is Sharing.VIEW else _whole(frozen)


def _whole(parts: Parts) -> int:
    return parts.nbytes + size_of(parts.meta)


def _is_immutable(value: Any) -> bool:
    todo, seen = [value], 0
    while todo:
        item = todo.pop()
        seen += 1
        if seen > _BUDGET:
            return False
        kind = type(item)
        if kind in (tuple, frozenset) or (
            isinstance(item, tuple) and structures.is_namedtuple(kind)
        ):
            todo.extend(item)
        elif kind not in scalars.IMMUTABLE and not _is_shared_leaf(item):
            return False
    return True


def _is_shared_leaf(item: Any) -> bool:
    if isinstance(item, np.void):
        return False
    if isinstance(item, np.generic):
        return True
    return _is_enum(item, "tree") and structures.name_of(type(item)) is not None


def _is_enum(value: Any, codec: str) -> bool:
    return isinstance(value, enum.Enum) and codec == "tree"
