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
    kind = type(value)
    if kind not in _CONTAINERS:
        return (value, sys.getsizeof(value)) if _is_leaf(value, kind) else None
    walk = _Walk(may_be_tied)
    try:
        root = walk.take(value, kind, _MAX_DEPTH)
    except RecursionError:
        return None  # Hardly any stack is left.
    if root is _REFUSED:
        return None
    unique = {id(leaf): leaf for leaf in walk.leaves}
    nbytes = walk.nbytes + sum(map(sys.getsizeof, unique.values()))
    if type(root) is not _Node:
        return value, nbytes
    for node, index in walk.arrays:
        place, array = node.children[index]
        node.children[index] = (place, freeze_array(array))
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


def _arrays(node: _Node) -> Iterator[Any]:
    for _, child in node.children:
        if type(child) is np.ndarray:
            yield child
        else:
            yield from _arrays(child)


class _Walk:
    """One pass over a value, which copies its containers and lists what it consists of."""

    __slots__ = ("_may_be_tied", "_memories", "_seen", "arrays", "leaves", "nbytes")

    def __init__(self, may_be_tied: bool) -> None:
        self.leaves: list[Any] = []  # Immutable objects, perhaps several times.
        self.arrays: list[tuple[_Node, int]] = []  # By the number of the child.
        self.nbytes = 0  # Of everything else.
        self._may_be_tied = may_be_tied
        self._seen: set[int] = set()  # Containers and arrays.
        self._memories: set[int] = set()  # Of arrays.

    def take(self, value: Any, kind: type, depth: int) -> Any:
        """Return a container itself if it is immutable, else a `_Node`, or `_REFUSED`."""
        seen = self._seen
        if id(value) in seen or depth == 0 or len(self.leaves) > _MAX_LEAVES:
            return _REFUSED
        seen.add(id(value))
        children: list[tuple[Any, Any]] = []
        if kind in _MAPPINGS:
            for key, item in value.items():
                if type(key) is not str and not self._is_plain_key(key):
                    return _REFUSED
                self.leaves.append(key)
                if type(item) in _LEAVES:
                    self.leaves.append(item)
                elif not self._take_child(key, item, children, depth):
                    return _REFUSED
            if kind is not dict and not _fits(value, kind):
                return _REFUSED
        elif kind is set or kind is frozenset:
            for key in value:
                if not self._is_plain_key(key):
                    return _REFUSED
                self.leaves.append(key)
        elif kind is not bytearray:
            for place, item in enumerate(value):
                if type(item) in _LEAVES:
                    self.leaves.append(item)
                elif not self._take_child(place, item, children, depth):
                    return _REFUSED
        if kind is frozenset or (kind is tuple and not children):
            seen.discard(id(value))  # It may occur again, since it is immutable.
            self.leaves.append(value)
            return value
        return self._node(list(value) if kind is tuple else value.copy(), children, kind is tuple)

    def _take_child(
        self, place: Any, item: Any, children: list[tuple[Any, Any]], depth: int
    ) -> bool:
        """Take what is not a leaf, note it among `children` if it is mutable; False: refused."""
        kind = type(item)
        if kind in _CONTAINERS:
            taken = self.take(item, kind, depth - 1)
            if type(taken) is _Node:
                children.append((place, taken))
            return taken is not _REFUSED
        if kind is np.ndarray:
            children.append((place, item))
            return self._is_plain_array(item)
        self.leaves.append(item)
        return _is_leaf(item, kind)

    def _is_plain_key(self, key: Any) -> bool:
        if type(key) is tuple and _BUILTIN.issuperset(map(type, key)):
            self.leaves.extend(key)
            return True
        return type(key) in _BUILTIN

    def _is_plain_array(self, value: Any) -> bool:
        if not is_ordinary(value) or id(value) in self._seen:
            return False
        self._seen.add(id(value))
        if self._may_be_tied:
            owner = memory_owner(value)
            # Arrays over one memory stay tied in the general way, and of two foreign owners it is
            # unknown whether they have the same memory.
            if type(owner) is not np.ndarray:
                return False
            memory = id(owner if owner.base is None else owner.base)
            if memory in self._memories:
                return False
            self._memories.add(memory)
        self.nbytes += value.nbytes + _ARRAY_BYTES
        return True

    def _node(self, content: Any, children: list[tuple[Any, Any]], is_tuple: bool) -> _Node:
        node = _Node(content, children, is_tuple)
        for index, (place, child) in enumerate(children):
            content[place] = None
            if type(child) is np.ndarray:
                self.arrays.append((node, index))
        self.nbytes += sys.getsizeof(content) + _NODE_BYTES + _CHILD_BYTES * len(children)
        return node


def _fits(value: Any, kind: type) -> bool:
    """Return whether a mapping has nothing besides its items that pickle would be needed for."""
    if kind is OrderedDict:
        return not vars(value)
    return kind is dict or is_known_factory(value.default_factory)


def _is_leaf(value: Any, kind: type) -> bool:
    """Return whether a value is immutable and its encoding cannot fail."""
    if kind not in _MOMENTS:
        return kind in _LEAVES
    zone = value.tzinfo
    return zone is None or zone is dt.UTC or (type(zone) is zoneinfo.ZoneInfo and bool(zone.key))
