"""Hold a nested value of plain types as a private copy, from which each reader gets a copy.

Copying lists, dicts and the like is several times faster than decoding them. Their leaves are
shared: immutable objects as they are, arrays as read-only views.
"""

from __future__ import annotations

import datetime as dt
import decimal
import sys
import zoneinfo
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np

from memories.codecs.arrays import ORDINARY_DTYPES, freeze_array, is_ordinary, memory_owner
from memories.codecs.base import Parts
from memories.codecs.containers import is_known_factory
from memories.codecs.nested import TREE
from memories.codecs.registry import encode

_MAX_DEPTH: Final = 16  # Each reader needs as many frames of the stack.
_MAX_LEAVES: Final = 100_000  # They are remembered by identity while they are counted.
# The encoding of none of these can fail or needs pickle.
_BUILTIN: Final = frozenset(
    {
        type(None), bool, int, float, complex, str, bytes, type(...),
        decimal.Decimal, dt.date, dt.timedelta,
    }
)  # fmt: skip
_LEAVES: Final = _BUILTIN | {dtype.type for dtype in ORDINARY_DTYPES}
_MOMENTS: Final = frozenset({dt.datetime, dt.time})
_MAPPINGS: Final = frozenset({dict, OrderedDict, defaultdict})
_CONTAINERS: Final = _MAPPINGS | {list, tuple, set, frozenset, deque, bytearray}
_KINDS: Final = _LEAVES | _MOMENTS | _CONTAINERS
_NODE_BYTES: Final = 112  # The node and the list of its children.
_CHILD_BYTES: Final = 64
_ARRAY_BYTES: Final = 256  # Two array objects, and the head of the memory.
_registered: set[type] = set()  # Kinds for which the program has registered a codec.


class _Refused:
    """What stands for a value that takes the general way."""


_REFUSED: Final = _Refused()


class _Node:
    """A mutable object: a copy without its mutable children, and the children by their place."""

    __slots__ = ("children", "content", "is_tuple")

    def __init__(self, content: Any, children: list[tuple[Any, Any]], is_tuple: bool) -> None:
        self.content = content
        self.children = children  # Nodes and arrays.
        self.is_tuple = is_tuple  # Then the content is a list.


class PrivateCopy:
    """A private copy of a nested value; each `open` returns a new one."""

    __slots__ = ("_root", "nbytes")

    codec = TREE

    def __init__(self, root: _Node, nbytes: int) -> None:
        self._root = root
        self.nbytes = nbytes

    def open(self) -> Any:
        """Return a new object for a reader; its arrays are read-only views."""
        return _build(self._root)

    def open_shared(self) -> Any:
        """Return what `open` returns, which shares all that can be shared."""
        return _build(self._root)

    @property
    def parts(self) -> Parts:
        """Return a new object taken apart, over the memory of the private arrays."""
        return encode(_build(self._root))

    def description(self) -> None:
        """Return None, since its parts are made at each call."""

    def owners(self) -> Iterable[Any]:
        """Return the objects that own the memory of its arrays."""
        return [memory_owner(array) for array in _arrays(self._root)]

    def __repr__(self) -> str:
        return f"<PrivateCopy {self.nbytes} B>"


def copy_privately(value: Any, *, may_be_tied: bool = True) -> tuple[Any, int] | None:
    """Return a `PrivateCopy` of `value`, or `value` itself if it is immutable, and its bytes.

    None means that the value takes the general way: it contains a value of another type or itself,
    one mutable object twice, or two arrays over one memory (which `may_be_tied=False` rules out),
    or is nested deeply. Nothing has been copied then.
    """
    walk = _Walk(may_be_tied)
    try:
        root = walk.take(value, _MAX_DEPTH)
    except RecursionError:
        return None  # Hardly any stack is left.
    if root is _REFUSED:
        return None
    nbytes = walk.nbytes + sum(map(sys.getsizeof, walk.leaves.values()))
    if type(root) is not _Node:
        return value, nbytes
    if walk.has_arrays:
        _freeze_arrays(root)
    return PrivateCopy(root, nbytes), nbytes


def can_copy(kind: type) -> bool:
    """Return whether values of `kind` may be copied privately, alone or in a tree."""
    return kind in _KINDS and kind is not bytearray and not _registered


def leave_to_codec(kind: type) -> None:
    """Let every value take the general way from now on if it might contain one of `kind`."""
    if kind in _KINDS or kind is np.ndarray:
        _registered.add(kind)


def _build(node: _Node) -> Any:
    made = node.content.copy()
    for place, child in node.children:
        made[place] = child.view() if type(child) is np.ndarray else _build(child)
    return tuple(made) if node.is_tuple else made


def _freeze_arrays(node: _Node) -> None:
    """Replace the arrays of the caller by private ones."""
    for index, (place, child) in enumerate(node.children):
        if type(child) is np.ndarray:
            node.children[index] = (place, freeze_array(child))
        else:
            _freeze_arrays(child)


def _arrays(node: _Node) -> Iterator[Any]:
    for _, child in node.children:
        if type(child) is np.ndarray:
            yield child
        else:
            yield from _arrays(child)


class _Walk:
    """One pass over a value, which copies its containers and adds up its bytes."""

    __slots__ = ("_may_be_tied", "_seen", "has_arrays", "leaves", "nbytes")

    def __init__(self, may_be_tied: bool) -> None:
        self.leaves: dict[int, Any] = {}  # By identity: what occurs twice counts once.
        self.nbytes = 0  # Of everything else.
        self.has_arrays = False
        self._may_be_tied = may_be_tied
        self._seen: set[int] = set()  # Mutable objects, and the memories of arrays.

    def take(self, value: Any, depth: int) -> Any:
        """Return an immutable value or an array itself, else a `_Node`, or `_REFUSED`."""
        kind = type(value)
        if kind in _LEAVES:
            self.leaves[id(value)] = value
            return value
        if kind in _CONTAINERS:
            return self._take_container(value, kind, depth)
        if kind is np.ndarray:
            return self._take_array(value)
        if kind in _MOMENTS and _has_plain_zone(value):
            self.leaves[id(value)] = value
            return value
        return _REFUSED

    def _take_container(self, value: Any, kind: type, depth: int) -> Any:
        if id(value) in self.leaves:
            return value  # A tuple or frozenset that is known to be immutable.
        if id(value) in self._seen or depth == 0:
            return _REFUSED
        self._seen.add(id(value))
        if kind is bytearray:
            return self._node(value.copy(), [], False)
        if len(self.leaves) + len(value) > _MAX_LEAVES:
            return _REFUSED
        if kind is set or kind is frozenset:
            if not self._take_keys(value):
                return _REFUSED
            return self._immutable(value) if kind is frozenset else self._node(value, [], False)
        if kind in _MAPPINGS:
            if not self._take_keys(value) or not _fits(value, kind):
                return _REFUSED
            return self._take_items(value, kind, value.items(), depth)
        return self._take_items(value, kind, enumerate(value), depth)

    def _take_items(self, value: Any, kind: type, items: Iterable[Any], depth: int) -> Any:
        children: list[tuple[Any, Any]] = []
        for place, item in items:
            if type(item) in _LEAVES:
                self.leaves[id(item)] = item
                continue
            taken = self.take(item, depth - 1)
            if taken is _REFUSED:
                return _REFUSED
            if type(taken) is _Node or type(taken) is np.ndarray:
                children.append((place, taken))
        if kind is not tuple:
            return self._node(value, children, False)
        return self._node(list(value), children, True) if children else self._immutable(value)

    def _take_keys(self, keys: Iterable[Any]) -> bool:
        """Count keys, and return whether all of them are plain: leaves, or tuples of leaves."""
        if not _BUILTIN.issuperset(map(type, keys)):
            for key in keys:
                if type(key) is tuple and _BUILTIN.issuperset(map(type, key)):
                    self.leaves.update(zip(map(id, key), key, strict=True))
                elif type(key) not in _BUILTIN:
                    return False
        self.leaves.update(zip(map(id, keys), keys, strict=True))
        return True

    def _take_array(self, value: Any) -> Any:
        if not is_ordinary(value):
            return _REFUSED
        if self._may_be_tied:
            owner = memory_owner(value)
            # Arrays over one memory stay tied in the general way, and of two foreign owners it is
            # unknown whether they have the same memory.
            if type(owner) is not np.ndarray:
                return _REFUSED
            memory = id(owner if owner.base is None else owner.base)
            if memory in self._seen:
                return _REFUSED
            self._seen.add(memory)
        self.has_arrays = True
        self.nbytes += value.nbytes + _ARRAY_BYTES
        return value

    def _immutable(self, value: Any) -> Any:
        self._seen.discard(id(value))
        self.leaves[id(value)] = value
        return value

    def _node(self, value: Any, children: list[tuple[Any, Any]], is_tuple: bool) -> _Node:
        content = value.copy()
        for place, _ in children:
            content[place] = None
        self.nbytes += sys.getsizeof(content) + _NODE_BYTES + _CHILD_BYTES * len(children)
        return _Node(content, children, is_tuple)


def _fits(value: Any, kind: type) -> bool:
    """Return whether a mapping has nothing besides its items that pickle would be needed for."""
    if kind is OrderedDict:
        return not vars(value)
    return kind is dict or is_known_factory(value.default_factory)


def _has_plain_zone(moment: Any) -> bool:
    zone = moment.tzinfo
    return zone is None or zone is dt.UTC or (type(zone) is zoneinfo.ZoneInfo and bool(zone.key))
