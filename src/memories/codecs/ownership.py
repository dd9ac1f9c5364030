"""How volatile tiers keep a value so that readers and callers cannot change it.

Immutable objects are kept as they are, arrays as read-only copies, and all other values as private
parts, from which every reader gets a new object.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from memories.codecs import arrays, registry, scalars, structures
from memories.codecs.base import Codec, Parts, Sharing, pack_meta
from memories.codecs.buffers import declare_owned, freeze
from memories.codecs.memory_size import size_of

_BUDGET = 10_000
ALWAYS_SHARED = frozenset({type(None), bool, int, float, complex, str, bytes})


class PrivateParts:
    """The private parts of a mutable value; each `open` returns a new object."""

    __slots__ = ("_build", "parts")

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._build: Callable[[], Any] = registry.codec_named(parts.codec).share(parts)

    def open(self) -> Any:
        """Return a new object for a reader.

        Raises:
            CorruptDataError: the parts came from a frame that was written with damaged content.
        """
        return registry.as_corrupt(self.parts.codec, self._build)

    def open_shared(self) -> Any:
        """Return the value over the memory of the parts, where `open` copies it.

        Raises:
            CorruptDataError: the parts came from a frame that was written with damaged content.
        """
        if type(registry.codec_named(self.parts.codec)).share is not Codec.share:
            return self.open()  # Its clones share the memory already.
        return registry.decode(self.parts._replace(given=self.parts.owned))

    @property
    def codec(self) -> str:
        """Return the name of the codec that can open the parts."""
        return self.parts.codec

    def description(self) -> Parts:
        """Return the parts, which are there already."""
        return self.parts

    def owners(self) -> Iterable[Any]:
        """Return the objects behind the buffers."""
        return {id(buffer.obj): buffer.obj for buffer in self.parts.buffers}.values()

    @property
    def nbytes(self) -> int:
        """Return the bytes of the parts, their description included."""
        return _whole(self.parts)

    def __repr__(self) -> str:
        return f"<PrivateParts {self.parts.codec}, {self.nbytes} B>"


def sharing(value: Any) -> Sharing:
    """Return what readers of `value` may share; tuples are searched to any depth."""
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
    """Return how readers share `value`, the payload for a volatile tier, and its bytes.

    The payload is the object itself, a read-only array, or `PrivateParts`. Of a value on a device
    it is its `Parts` over the memory there, which belongs to the caller unless `copy` is False.

    Raises:
        UnsupportedTypeError: the value cannot be encoded, so it could never leave RAM.
    """
    if type(value) in ALWAYS_SHARED:
        return Sharing.SHARED, value, sys.getsizeof(value)
    shared = sharing(value)
    if shared is Sharing.VIEW:
        master = arrays.freeze_array(np.asarray(value), copy=copy)
        return shared, master, master.nbytes
    parts = registry.encode_in_place(value)
    pack_meta(parts.meta)  # Raises here what would otherwise be raised later, in the background.
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
    """Return what `own_value` returns, over the memory of the caller.

    Nothing is copied or made read-only, so the result may only be encoded, and only while nothing
    writes to `value`.

    Raises:
        UnsupportedTypeError: the value cannot be serialised.
    """
    if type(value) in ALWAYS_SHARED:
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
    """Return what `own_value` returns, for the parts of a frame.

    Owned buffers, such as decompressed ones, are not copied; with `copy=False` nothing is copied.

    Raises:
        CorruptDataError: the parts are damaged.
    """
    shared = registry.codec_named(parts.codec).sharing
    if shared is Sharing.SHARED and (parts.codec in scalars.NAMES or not parts.buffers):
        value = registry.decode(parts)  # Decoding copies.
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
