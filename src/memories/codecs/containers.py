"""The table of containers (lists, dicts, enums, dataclasses, ...) that a tree may have as nodes.

Each row has two functions, which encode and decode the container by its children. Keys of mappings
and items of sets are hashed only if their types hash without running code of the user.
"""

from __future__ import annotations

import decimal
import enum
import fractions
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple, Protocol

import numpy as np

from memories.codecs import scalars, structures
from memories.codecs.allowance import spend_steps
from memories.codecs.expect import expect
from memories.errors import CorruptDataError, UnsupportedTypeError

_KEY_BUDGET = 100_000
_RANDOM = frozenset({str, bytes, bool, type(None)})  # Their hashes cannot be chosen.
_FEW = 1000
_BYTES_PER_STEP = 64
_FACTORIES = MappingProxyType(
    {kind.__name__: kind for kind in (int, float, str, list, dict, set, tuple, bool, bytes)}
)


class ChildEncoder(Protocol):
    """The part of the encoder that a container sees."""

    def child(self, value: Any) -> Any:
        """Encode one value."""

    def children(self, values: Iterable[Any]) -> list[Any]:
        """Encode several values."""


class ChildDecoder(Protocol):
    """The part of the decoder that a container sees."""

    def child(self, reference: Any) -> Any:
        """Decode one value."""

    def children(self, references: list[Any]) -> list[Any]:
        """Decode several values."""


class Container(NamedTuple):
    """A container of the format: its arguments in a node, and the way back."""

    encode: Callable[[ChildEncoder, Any], tuple[Any, ...]]
    decode: Callable[..., Any]


EXACT: dict[type, str] = {
    list: "list",
    tuple: "tuple",
    dict: "dict",
    set: "set",
    frozenset: "frozenset",
    OrderedDict: "ordereddict",
    Counter: "counter",
    defaultdict: "defaultdict",
    deque: "deque",
    SimpleNamespace: "namespace",
}
_PANDAS_SCALARS = frozenset({"Timestamp", "Timedelta", "Period", "Interval", "NaTType", "NAType"})
_KEYED = frozenset({"dict", "ordereddict", "counter", "defaultdict", "set", "frozenset"})


def container_of(value: Any) -> str | None:
    """Return the name of the container in the table for `value`, or None."""
    kind = type(value)
    name = EXACT.get(kind)
    if name is not None:
        return name if _fits(name, value) else None
    if isinstance(value, enum.Enum):
        known = structures.name_of(kind) and structures.enum_member(value) is not None
        return "enum" if known else None
    if isinstance(value, tuple) and structures.is_namedtuple(kind):
        return "namedtuple" if structures.name_of(kind) else None
    if structures.is_dataclass(kind) and structures.name_of(kind):
        return "dataclass" if structures.field_values(value) is not None else None
    return None


def hashes_safely(key: Any) -> bool:
    """Return whether hashing `key` runs only code of the interpreter, in bounded time."""
    return _steps_to_hash(key) is not None


def _steps_to_hash(key: Any) -> int | None:
    """Return the items that are hashed with `key`; None if it is not safe."""
    todo, steps = [key], 0
    while todo:
        item = todo.pop()
        kind = type(item)
        steps += 1 if kind in _RANDOM else 1 + _nbytes_to_hash(item, kind) // _BYTES_PER_STEP
        if steps > _KEY_BUDGET:
            return None
        if kind in (tuple, frozenset) or (isinstance(item, tuple) and _plain_tuple(kind)):
            kinds = set(map(type, item))
            if kinds <= _RANDOM:
                steps += len(item)
            elif kinds == {int}:
                steps += len(item) * (1 + max(map(int.bit_length, item)) // (8 * _BYTES_PER_STEP))
            else:
                todo.extend(item)
        elif not (kind in scalars.IMMUTABLE or _plain_enum(item) or _compiled_scalar(item)):
            return None
    return steps if steps <= _KEY_BUDGET else None


def _nbytes_to_hash(item: Any, kind: type) -> int:
    """Return how many bytes a number has whose hash is computed each time."""
    if kind is int:
        return int(item.bit_length()) >> 3
    if kind is fractions.Fraction:
        return int(item.numerator.bit_length() + item.denominator.bit_length()) >> 3
    return sys.getsizeof(item) if kind is decimal.Decimal else 0


def is_known_factory(factory: Any) -> bool:
    """Return whether the format has a name for the factory of a defaultdict."""
    return factory is None or _FACTORIES.get(getattr(factory, "__name__", "")) is factory


def _fits(name: str, value: Any) -> bool:
    if name in _KEYED and not _all_hash_safely(value):
        return False
    if name == "defaultdict" and not is_known_factory(value.default_factory):
        return False
    if name in ("counter", "defaultdict", "deque"):
        return not getattr(value, "__dict__", None)
    return True


def _all_hash_safely(keys: Iterable[Any]) -> bool:
    if set(map(type, keys)) <= scalars.IMMUTABLE:
        return True
    return all(hashes_safely(key) for key in keys)


def _plain_tuple(kind: type) -> bool:
    return (
        structures.is_namedtuple(kind)
        and getattr(kind, "__hash__", None) is vars(tuple)["__hash__"]
    )


def _plain_enum(item: Any) -> bool:
    if not isinstance(item, enum.Enum):
        return False
    return type(item).__hash__ in (enum.Enum.__hash__, int.__hash__, str.__hash__)


def _compiled_scalar(item: Any) -> bool:
    kind = type(item)
    if kind.__module__.partition(".")[0] == "pandas":
        return kind.__name__ in _PANDAS_SCALARS
    return isinstance(item, np.generic) and kind.__module__ == "numpy"


def _keys(up: ChildDecoder, references: list[Any]) -> list[Any]:
    keys = up.children(references)
    kinds = set(map(type, keys))
    if kinds <= _RANDOM:
        return keys
    steps = 0
    for key in keys:
        more = _steps_to_hash(key)
        if more is None:
            raise CorruptDataError("the keys of a stored mapping or set cannot be hashed safely")
        steps += more
    spend_steps(steps, "hashing the keys of a stored mapping or set")
    if len(keys) > _FEW:
        hashes = set(map(hash, keys))
        if len(keys) - len(hashes) > _FEW:  # Each of those is compared with all others.
            counts = Counter(map(hash, keys)).values()
            spend_steps(sum(n * n for n in counts) // 4, "comparing keys with one hash")
    return keys


def _mapping(down: ChildEncoder, value: Any) -> tuple[Any, ...]:
    return down.children(value.keys()), down.children(value.values())


def _pairs(up: ChildDecoder, keys: Any, values: Any) -> Any:
    found, held = _keys(up, keys), up.children(values)
    return zip(found, held, strict=True)


def _encode_ordered(down: ChildEncoder, value: Any) -> tuple[Any, ...]:
    return (*_mapping(down, value), down.child(dict(vars(value))))


def _decode_ordered(up: ChildDecoder, keys: Any, values: Any, attributes: Any) -> Any:
    result: OrderedDict[Any, Any] = OrderedDict(_pairs(up, keys, values))
    vars(result).update(_str_dict(up.child(attributes)))
    return result


def _decode_counter(up: ChildDecoder, keys: Any, values: Any) -> Any:
    result: Counter[Any] = Counter()
    dict.update(result, _pairs(up, keys, values))
    return result


def _encode_default(down: ChildEncoder, value: Any) -> tuple[Any, ...]:
    factory = value.default_factory
    return (*_mapping(down, value), None if factory is None else factory.__name__)


def _decode_default(up: ChildDecoder, keys: Any, values: Any, factory: Any) -> Any:
    made = None if factory is None else _FACTORIES[factory]
    return defaultdict(made, _pairs(up, keys, values))


def _encode_enum(_: ChildEncoder, value: Any) -> tuple[Any, ...]:
    return structures.name_of(type(value)), structures.enum_member(value)


def _encode_dataclass(down: ChildEncoder, value: Any) -> tuple[Any, ...]:
    state = structures.field_values(value)
    if state is None:
        raise UnsupportedTypeError(f"{type(value).__qualname__} changed while it was encoded")
    return structures.name_of(type(value)), list(state), down.children(state.values())


def _decode_dataclass(up: ChildDecoder, name: Any, names: Any, values: Any) -> Any:
    state = _str_dict(dict(zip(expect(names, list, "names"), up.children(values), strict=True)))
    return structures.build_dataclass(structures.find_type(name), state)


def _str_dict(value: Any) -> dict[str, Any]:
    if type(value) is not dict or not all(type(key) is str for key in value):
        raise CorruptDataError("the attributes of a stored object are damaged")
    return value


CONTAINERS: dict[str, Container] = {
    "list": Container(lambda down, v: (down.children(v),), lambda up, items: up.children(items)),
    "tuple": Container(
        lambda down, v: (down.children(v),), lambda up, items: tuple(up.children(items))
    ),
    "set": Container(lambda down, v: (down.children(v),), lambda up, items: set(_keys(up, items))),
    "frozenset": Container(
        lambda down, v: (down.children(v),), lambda up, items: frozenset(_keys(up, items))
    ),
    "dict": Container(_mapping, lambda up, keys, values: dict(_pairs(up, keys, values))),
    "ordereddict": Container(_encode_ordered, _decode_ordered),
    "counter": Container(_mapping, _decode_counter),
    "defaultdict": Container(_encode_default, _decode_default),
    "deque": Container(
        lambda down, v: (down.children(v), v.maxlen),
        lambda up, items, maxlen: deque(
            up.children(items), None if maxlen is None else expect(maxlen, int, "a length")
        ),
    ),
    "namespace": Container(
        lambda down, v: (down.child(dict(vars(v))),),
        lambda up, state: SimpleNamespace(**_str_dict(up.child(state))),
    ),
    "enum": Container(
        _encode_enum,
        lambda up, name, member: structures.find_member(structures.find_type(name), member),
    ),
    "namedtuple": Container(
        lambda down, v: (structures.name_of(type(v)), down.children(v)),
        lambda up, name, items: structures.build_namedtuple(
            structures.find_type(name), up.children(items)
        ),
    ),
    "dataclass": Container(_encode_dataclass, _decode_dataclass),
}
