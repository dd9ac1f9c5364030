"""Hash values of any type, as a combination of the hashes of their parts.

`hash_value` decides what the parts of a value are; a `PartHasher` hashes each part, and decides
what becomes of parts that occur twice. The type of each part counts, so that `1`, `1.0`, `True` and
`"1"` all differ.
"""

from __future__ import annotations

import copyreg
import pickle
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from operator import attrgetter
from types import FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import numpy as np
from xxhash import xxh3_128_digest

from memories.codecs import dtypes, registry, scalars, structures
from memories.codecs.arrays import bytes_of, is_flat, without_padding
from memories.codecs.base import Codec, carries_code
from memories.codecs.buffers import fetch
from memories.codecs.containers import EXACT, container_of
from memories.codecs.digests import hash_all, head_of, join
from memories.codecs.function_code import is_installed, place_of
from memories.codecs.nested import StructureCodec, TreeCodec
from memories.codecs.part_hash import (
    array_head,
    hash_part,
    join_items,
    join_unordered,
    note_structure,
)
from memories.codecs.structures import field_values
from memories.errors import MemoriesError, UnsupportedTypeError

# Types that pickle refuses, or pickles with caches, although a few attributes are their content.
_MADE_OF: Final[Mapping[str, Callable[[Any], Any]]] = MappingProxyType(
    {
        "_struct.Struct": attrgetter("format"),
        "builtins.dict_keys": list,
        "builtins.dict_values": list,
        "builtins.dict_items": list,
        "ctypes.CDLL": attrgetter("_name"),
        "numpy.vectorize": attrgetter("pyfunc", "otypes", "signature", "excluded"),
        "numba.core.registry.CPUDispatcher": lambda it: (
            it.py_func,
            it.targetoptions,
            None if it._can_compile else str(it.signatures),  # It grows where any type will do.
        ),
    }
)
DEFINITIONS = (FunctionType, type)
HASHED_AS = "_memories_hashed_as"  # A method of classes that pickle stores in another way.
_ARRAYS = (np.ndarray, np.memmap)
_BARE = frozenset({list, tuple, dict, Counter})  # They are nothing beside their items.
_pack = msgspec.msgpack.Encoder().encode


class _Absent:
    """The value of an empty cell, and of a global name that is not defined yet."""


ABSENT: Final = _Absent()


class _Route(NamedTuple):
    """How values with one codec are hashed: by their structure, by their parts, or otherwise."""

    codec: Codec
    mark: bytes
    take_apart: Callable[[Any], Any] | None
    is_leaf: bool


# Of types of other packages, which are neither containers nor definitions.
_routes: dict[type, _Route] = {}


class PartHasher(Protocol):
    """Hashes the parts of a value."""

    def digest(self, value: Any) -> bytes:
        """Return the hash of one part."""

    def digest_definition(self, value: Any) -> bytes:
        """Return the hash of a function or a class."""

    def digest_set_item(self, value: Any) -> bytes:
        """Return the hash of an item of a set, which must not depend on the other items."""


def hash_value(hasher: PartHasher, value: Any) -> bytes:
    """Return the hash of one value, made of the hashes of its parts by `hasher`."""
    found = hash_part(hasher, value)
    return hash_other(hasher, value) if found is None else found


def hash_other(hasher: PartHasher, value: Any) -> bytes:
    """Return the hash of a value for which `hash_part` returns None."""
    kind = type(value)
    if kind in _routes:
        return _hash_coded(hasher, value)
    if kind is np.ndarray and is_flat(value):
        return _hash_flat(value)
    if kind in scalars.IMMUTABLE:
        return _hash_reduced(hasher, value)
    if kind not in EXACT:  # Most are none of these, and to ask takes time.
        if isinstance(value, DEFINITIONS):
            return hasher.digest_definition(value)
        if isinstance(value, MethodType):
            return hash_all(b"method", map(hasher.digest, (value.__func__, value.__self__)))
        if isinstance(value, ModuleType):
            return hash_all(b"module", [value.__name__.encode(), place_of(vars(value)).encode()])
        if isinstance(value, MappingProxyType):
            return hash_all(b"mappingproxy", [hasher.digest(value.copy())])
    container = container_of(value)
    if container is not None:
        return _hash_container(hasher, container, value)
    return _hash_coded(hasher, value)


def _hash_coded(hasher: PartHasher, value: Any) -> bytes:
    """Return the hash of any other value: by its codec, or by what pickle stores."""
    if type(value) in _ARRAYS and value.dtype.char == "O" and value.dtype.metadata is None:
        described = join([hasher.digest(type(value)), repr(value.shape).encode()])
        items = join_items(hasher, list(value.reshape(-1, order="C")))
        return xxh3_128_digest(head_of(b"objects") + described + items)
    route = _route_for(value)
    if route.take_apart is not None:
        structure = _structure_of(route.take_apart, value)
        if structure is not ABSENT:
            return hash_all(route.mark, [hasher.digest(structure)])
    elif route.is_leaf:
        parts = fetch(route.codec.encode(value))
        if not carries_code(parts.codec):
            buffers = [xxh3_128_digest(buffer) for buffer in parts.buffers]
            return hash_all(parts.codec.encode(), [_pack(parts.meta), *buffers])
    return _hash_reduced(hasher, value)


def _route_for(value: Any) -> _Route:
    codec = registry.codec_for(value)
    route = _routes.get(type(value))
    if route is not None and route.codec is codec:
        return route
    structured = isinstance(codec, StructureCodec)
    is_leaf = not (structured or carries_code(codec.name) or isinstance(codec, TreeCodec))
    take_apart = codec.take_apart if isinstance(codec, StructureCodec) else None
    route = _Route(codec, codec.name.encode(), take_apart, is_leaf)
    package = type(value).__module__.partition(".")[0]
    if (structured or is_leaf) and package in registry.FAMILIES and package != "numpy":
        _routes[type(value)] = route
    return route


def _hash_container(hasher: PartHasher, name: str, value: Any) -> bytes:
    if name == "enum":
        member = structures.enum_member(value)
        return hash_all(b"enum", [hasher.digest(type(value)), repr(member).encode()])
    if name == "dataclass":
        in_dict = structures.fields_in_dict(type(value))
        if in_dict is not None:
            note_structure(type(value), in_dict)
        return hash_all(
            b"dataclass", [hasher.digest(type(value)), hasher.digest(field_values(value))]
        )
    if name == "namespace":
        return hash_all(b"namespace", [hasher.digest(vars(value))])
    if name == "namedtuple":
        note_structure(type(value), None)
    head = head_of(name.encode())
    if isinstance(value, set | frozenset):
        return xxh3_128_digest(head + join_unordered(hasher, value))
    items = join([_hash_rest(hasher, value)]) + join_items(hasher, list(value))
    if isinstance(value, dict):
        items += join([b""]) + join_items(hasher, list(value.values()))
    return xxh3_128_digest(head + items)


def _hash_rest(hasher: PartHasher, value: Any) -> bytes:
    """Return the hash of what a container is beside its items."""
    kind = type(value)
    if kind in _BARE:
        return b""
    if isinstance(value, defaultdict):
        return hasher.digest(value.default_factory)
    if isinstance(value, deque):
        return repr(value.maxlen).encode()
    if isinstance(value, OrderedDict):
        return hasher.digest(dict(vars(value)))
    return hasher.digest(kind)


def _hash_reduced(hasher: PartHasher, value: Any) -> bytes:
    kind = type(value)
    if isinstance(value, set | frozenset):  # Of a class of its own; pickle keeps its order.
        own = [hasher.digest(type(value)), hasher.digest(getattr(value, "__dict__", None))]
        return xxh3_128_digest(head_of(b"set") + join(own) + join_unordered(hasher, value))
    if kind is object:
        raise UnsupportedTypeError("an object() has no content by which it differs from another")
    made_of = _MADE_OF.get(kind_name(kind))
    if made_of is not None:
        return hash_all(b"made of", [hasher.digest(type(value)), hasher.digest(made_of(value))])
    hashed_as = getattr(kind, HASHED_AS, None)
    if hashed_as is not None:
        return hash_all(b"hashed as", [hasher.digest(kind), hasher.digest(hashed_as(value))])
    try:
        hook = copyreg.dispatch_table.get(kind)
        reduced = hook(value) if hook is not None else value.__reduce_ex__(4)
    except (MemoriesError, RecursionError, MemoryError):
        raise
    except Exception as error:  # A class may raise anything while it is pickled.
        raise UnsupportedTypeError(
            f"a {kind.__module__}.{kind.__qualname__} cannot be hashed: it has no codec and "
            f"pickle refuses it ({error})"
        ) from error
    if isinstance(reduced, str):
        return _hash_global(hasher, value, reduced)
    make, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    lists = [list(items) if items is not None else None]
    lists += [list(pairs) if pairs is not None else None]
    return hash_all(b"object", map(hasher.digest, (make, arguments, state, *lists)))


def _hash_global(hasher: PartHasher, value: Any, name: str) -> bytes:
    wrapped = getattr(value, "__wrapped__", None)
    if wrapped is not None:  # A compiled wrapper, that of `functools.lru_cache` say.
        return hash_all(b"wrapper", [hasher.digest(type(value)), hasher.digest(wrapped)])
    module = pickle.whichmodule(value, name)  # type: ignore[attr-defined]
    namespace = vars(sys.modules[module]) if module in sys.modules else {}
    if not is_at(value, namespace, name):
        raise UnsupportedTypeError(
            f"{module}.{name} cannot be hashed: only an object at the top level of a module is "
            "identified by its name"
        )
    place = place_of(namespace)
    origin = module if is_installed(place) else place
    return hash_all(b"global", [origin.encode("utf-8", "surrogateescape"), name.encode()])


def _structure_of(take_apart: Callable[[Any], Any], value: Any) -> Any:
    """Return what `value` is made of, or `ABSENT` where it is not as its codec expects."""
    try:
        return take_apart(value)
    except (MemoriesError, RecursionError, MemoryError):
        raise
    except Exception:  # What a package makes of its own types may fail in any way.
        return ABSENT


def is_at(value: Any, namespace: Mapping[str, Any], name: str) -> bool:
    """Return whether a qualified name leads to `value`."""
    first, *rest = name.split(".")
    found = namespace.get(first, ABSENT)
    for part in rest:
        found = getattr(found, part, ABSENT)
    return found is value


def kind_name(kind: type) -> str:
    """Return module and qualified name of a type."""
    return f"{kind.__module__}.{kind.__qualname__}"


def _hash_flat(value: Any) -> bytes:
    """Return the hash of an array whose dtype is described, and has no buffer in some cases."""
    plain = without_padding(value) if value.dtype.char in "gG" else np.ascontiguousarray(value)
    items = xxh3_128_digest(bytes_of(plain))
    return xxh3_128_digest(array_head(dtypes.describe(value.dtype), value.shape) + items)
