"""Encode nested values as a flat list of nodes over shared buffers.

A child of a node is either an atom, which is written in place, or `[n]`, a reference to an earlier
node, so that shared objects stay shared. Decoding is a loop over the nodes without recursion, so a
hostile frame cannot exhaust the stack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from memories.codecs import allowance, registry
from memories.codecs.base import (
    NOTHING_FAR,
    SIGNED,
    Codec,
    DeviceBuffer,
    Parts,
    Sharing,
    carries_code,
)
from memories.codecs.buffers import address, is_utf8, own_buffer
from memories.codecs.containers import CONTAINERS, container_of
from memories.codecs.expect import expect, expect_dict
from memories.codecs.pickled import PickleCodec
from memories.codecs.scalars import INT_MAX, INT_MIN
from memories.errors import CorruptDataError, UnsupportedTypeError

_INLINE_TEXT = 1024
_INLINE_BYTES = 256
_FREE: frozenset[type] = frozenset({type(None), bool, float})
TREE = "tree"
_COPYING = frozenset({"bytes", "str", "bytearray", "polars.frame", "polars.series"})
ATOMS = frozenset({type(None), bool, int, float, str, bytes})


class TreeCodec(Codec):
    """Dicts, lists, tuples, sets, dataclasses, named tuples and enums of anything."""

    name = TREE

    def encode(self, value: Any) -> Parts:
        """Return the nodes and buffers of the tree."""
        return encode_as(self.name, value)

    def decode(self, parts: Parts, *, writable: bool = False) -> Any:
        """Build the tree from its leaves to its root."""
        with allowance.Allowance(parts):
            return decode_structure(parts, writable=writable)


class StructureCodec(Codec):
    """A codec whose values are encoded as a structure of other values.

    `take_apart` returns containers, arrays and other values that have codecs; `put_together` gets
    the same structure and returns the value.
    """

    def __init__(
        self,
        name: str,
        take_apart: Callable[[Any], Any],
        put_together: Callable[[Any], Any],
        sharing: Sharing = Sharing.FRESH,
    ):
        self.name = name  # type: ignore[misc]
        self.sharing = sharing  # type: ignore[misc]
        self.take_apart = take_apart
        self.put_together = put_together

    def encode(self, value: Any) -> Parts:
        """Encode the structure of the value."""
        return encode_as(self.name, self.take_apart(value))

    def decode(self, parts: Parts, *, writable: bool = False) -> Any:
        """Return the value of the decoded structure."""
        with allowance.Allowance(parts):
            return self.put_together(decode_structure(parts, writable=writable))


def encode_as(name: str, structure: Any) -> Parts:
    """Encode `structure` under the name of the codec that can decode it.

    Raises:
        UnsupportedTypeError: it contains itself, is nested too deeply, or contains a value that
            cannot be encoded.
    """
    encoder = NodeEncoder()
    try:
        root = encoder.child(structure)
    except RecursionError as error:
        raise UnsupportedTypeError(
            "the value is nested deeper than the recursion limit of the interpreter allows"
        ) from error
    return Parts(
        name + SIGNED if encoder.code else name,
        {"nodes": encoder.nodes, "root": root},
        tuple(encoder.buffers),
        frozenset(encoder.owned),
        encoder.far,
    )


def decode_structure(parts: Parts, *, writable: bool = False) -> Any:
    """Return the structure that `encode_as` encoded."""
    return NodeDecoder(parts, writable).root()


class NodeEncoder:
    """Collects nodes and buffers; each object and each memory range is stored once."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.buffers: list[memoryview] = []
        self.owned: set[int] = set()
        self.far: dict[int, DeviceBuffer] = {}
        self.code = False
        self._seen: dict[int, int] = {}
        self._open: set[int] = set()
        self._places: dict[tuple[str, int, int], int] = {}
        self._alive: list[Any] = []  # An id means something only while its object lives.

    def child(self, value: Any) -> Any:
        """Return `value` if it is an atom, else a reference to its node."""
        if is_atom(value):
            return value
        identity = id(value)
        seen = self._seen.get(identity)
        if seen is not None:
            return [seen]
        if identity in self._open:
            raise UnsupportedTypeError(
                f"the value contains itself, by way of a {type(value).__name__}: break the cycle, "
                "or register a codec for its type"
            )
        self._open.add(identity)
        self.nodes.append(self._node(value))
        self._open.remove(identity)
        self._alive.append(value)
        self._seen[identity] = len(self.nodes) - 1
        return [len(self.nodes) - 1]

    def children(self, values: Iterable[Any]) -> list[Any]:
        """Return `values` with everything but atoms replaced by references."""
        items = list(values)
        kinds = set(map(type, items))
        if kinds <= _FREE or (kinds == {str} and _all_short(items)):
            return items
        return [self.child(item) for item in items]

    def _node(self, value: Any) -> list[Any]:
        container = container_of(value)
        if container is not None:
            return [container, *CONTAINERS[container].encode(self, value)]
        codec = registry.codec_for(value)
        # A container whose keys or attributes the format cannot store is pickled as a whole.
        return self._leaf((codec if codec.name != TreeCodec.name else PickleCodec()).encode(value))

    def _leaf(self, parts: Parts) -> list[Any]:
        self.code = self.code or carries_code(parts.codec)
        places = [self._place(parts, i) for i in range(len(parts.buffers))]
        return [parts.codec, parts.meta, places]

    def _place(self, parts: Parts, index: int) -> int:
        buffer, far = parts.buffers[index], parts.far.get(index)
        if far is None:
            where = ("", address(buffer), buffer.nbytes)
        else:
            where = (far.device, far.address, far.nbytes)
        place = self._places.setdefault(where, len(self.buffers))
        if place == len(self.buffers):
            self.buffers.append(buffer)
            if far is not None:
                self.far[place] = far
            if index in parts.owned:
                self.owned.add(place)
        return place


class NodeDecoder:
    """Builds the values of all nodes in their order."""

    def __init__(self, parts: Parts, writable: bool) -> None:
        self.values: list[Any] = []
        self._parts = parts
        self._writable = writable
        self._copies: dict[int, memoryview] = {}
        self._may_run = carries_code(parts.codec)

    def root(self) -> Any:
        """Return the outermost value."""
        meta = expect_dict(self._parts.meta, ("nodes", "root"), "a structure")
        for node in expect(meta["nodes"], list, "a list of nodes"):
            self.values.append(self._build(node))
        return self.child(meta["root"])

    def child(self, reference: Any) -> Any:
        """Return the value that an atom or a reference stands for."""
        if type(reference) in ATOMS:
            return reference
        (index,) = expect(reference, list, "a reference to a node")
        if type(index) is not int or not 0 <= index < len(self.values):
            raise CorruptDataError("a node refers to a node that is not before it")
        return self.values[index]

    def children(self, references: list[Any]) -> list[Any]:
        """Return the values of a list of atoms and references."""
        expect(references, list, "a list of values")
        if set(map(type, references)) <= ATOMS:
            return list(references)
        return [self.child(reference) for reference in references]

    def _build(self, node: list[Any]) -> Any:
        name = expect(expect(node, list, "a node")[0], str, "the name of a node")
        container = CONTAINERS.get(name)
        if container is not None:
            return container.decode(self, *node[1:])
        _, meta, places = node
        if carries_code(name) and not self._may_run:
            raise CorruptDataError("an unsigned value contains one that carries code")
        expect(places, list, "a list of buffers")
        if not all(type(place) is int and place >= 0 for place in places):
            raise CorruptDataError("a node refers to a buffer that does not exist")
        codec, far = registry.codec_named(name), self._far(places)
        if codec.private and not self._writable:
            own = tuple(self._own(place) for place in places)
            return codec.decode(Parts(name, meta, own, far=far), writable=True)
        buffers = tuple(self._parts.buffers[place] for place in places)
        if name in _COPYING:  # Many nodes may refer to one buffer.
            allowance.spend(sum(buffer.nbytes for buffer in buffers), f"a {name}")
        given = frozenset(i for i, place in enumerate(places) if place in self._parts.given)
        inner = Parts(name, meta, buffers, far=far, given=given)
        return codec.decode(inner, writable=self._writable)

    def _far(self, places: list[int]) -> Mapping[int, DeviceBuffer]:
        if not self._parts.far:
            return NOTHING_FAR
        far = self._parts.far
        return {i: far[place] for i, place in enumerate(places) if place in far}

    def _own(self, place: int) -> memoryview:
        if not self._parts.buffers[place].nbytes:  # It is empty, or on a device.
            return self._parts.buffers[place]
        if place not in self._copies:
            self._copies[place] = own_buffer(self._parts, place)
        return self._copies[place]


def is_atom(value: Any) -> bool:
    """Return whether `value` is written in place."""
    kind = type(value)
    if kind is str:
        return len(value) <= _INLINE_TEXT and is_utf8(value)
    if kind is int:
        return bool(INT_MIN <= value <= INT_MAX)
    if kind is bytes:
        return len(value) <= _INLINE_BYTES
    return kind in _FREE


def _all_short(texts: list[str]) -> bool:
    return max(map(len, texts)) <= _INLINE_TEXT and is_utf8("".join(texts))
