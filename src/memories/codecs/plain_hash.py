"""Hashes nested lists, tuples and dicts of plain values at the speed of C, where they are that."""

from __future__ import annotations

import marshal
from typing import Any, Final

from xxhash import xxh3_128_digest

from memories.codecs.digests import WIDTH_BEFORE, head_of

ATOMS: Final = frozenset({type(None), bool, int, float, str, bytes})
CONTAINERS: Final = frozenset({list, tuple, dict})
_PLAIN: Final = ATOMS | CONTAINERS
_FEW: Final = 8  # Of more parts the types are collected in one call, of less one by one.
MOST_CONTAINERS = 1 << 20  # Of one value, those that occur twice twice: it may contain itself.
_HEAD: Final = head_of(b"plain") + WIDTH_BEFORE
_VERSION: Final = 2  # Of marshal: the last one that does not depend on which objects are the same.


def plain_hash(value: Any) -> bytes | None:
    """Return the hash of a nested container of plain values; None where it has anything else.

    It depends on types, contents and order only. Whether a value has such a hash depends on them,
    too, so that equal values get equal hashes, whatever they share.
    """
    waiting = [value]
    visited, most = 0, MOST_CONTAINERS
    while waiting:
        visited += 1
        if visited > most:
            return None
        one = waiting.pop()
        if type(one) is dict:
            if not _are_plain(one, None):
                return None
            one = one.values()
        if not _are_plain(one, waiting):
            return None
    try:
        return xxh3_128_digest(_HEAD + xxh3_128_digest(marshal.dumps(value, _VERSION)))
    except ValueError:
        return None  # It is nested too deeply.


def _are_plain(parts: Any, waiting: list[Any] | None) -> bool:
    """Return whether all parts are atoms, or containers, which are appended to `waiting`."""
    if len(parts) > _FEW:
        kinds = set(map(type, parts))
        if kinds <= ATOMS:
            return True
        if not kinds <= _PLAIN:
            return False
    for part in parts:
        kind = type(part)
        if kind in ATOMS:
            continue
        if waiting is None or kind not in CONTAINERS:
            return False
        waiting.append(part)
    return True
