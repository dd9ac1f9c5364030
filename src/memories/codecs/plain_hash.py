"""Hashes nested lists, tuples and dicts of plain values at the speed of C, where they are that."""

from __future__ import annotations

import marshal
from typing import Any, Final

import xxhash

from memories.codecs.function_code import hash_all

_ATOMS: Final = frozenset({type(None), bool, int, float, str, bytes})
_CONTAINERS: Final = frozenset({list, tuple, dict})
_PLAIN: Final = _ATOMS | _CONTAINERS
MOST_CONTAINERS = 1 << 20  # Of one value, those that occur twice twice: it may contain itself.
_VERSION = 2  # Of marshal: the last one that does not depend on which objects are the same.


def plain_hash(value: Any) -> bytes | None:
    """Return the hash of a nested container of plain values; None where it has anything else.

    It depends on types, contents and order only. Whether a value has such a hash depends on them,
    too, so that equal values get equal hashes, whatever they share.
    """
    waiting = [value]
    visited = 0
    while waiting:
        visited += 1
        if visited > MOST_CONTAINERS:
            return None
        one = waiting.pop()
        if type(one) is dict:
            if not _ATOMS.issuperset(map(type, one)):
                return None
            one = one.values()
        kinds = set(map(type, one))
        if not kinds <= _ATOMS:
            if not kinds <= _PLAIN:
                return None
            waiting += (part for part in one if type(part) in _CONTAINERS)
    try:
        return hash_all(b"plain", [xxhash.xxh3_128_digest(marshal.dumps(value, _VERSION))])
    except ValueError:
        return None  # It is nested too deeply.
