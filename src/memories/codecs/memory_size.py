"""Estimate how many bytes of RAM a value takes, with all objects that it refers to.

Every object and every buffer counts once, so views of the same memory are not counted again.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

_BUDGET = 100_000
_CONTAINERS = (list, tuple, set, frozenset)


def size_of(value: Any, budget: int = _BUDGET) -> int:
    """Return the bytes that `value` takes; each object and each buffer counts once.

    The size of a graph of more than `budget` objects is estimated from those visited first, so that
    the cost is bounded.
    """
    total, visited, pending = 0, 0, [value]
    seen: set[int] = set()
    while pending and visited < budget:
        item = pending.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        visited += 1
        total += _own_size(item, seen)
        pending.extend(_children(item))
    return total + len(pending) * (total // visited if visited else 0)


def _own_size(item: Any, seen: set[int]) -> int:
    if isinstance(item, np.ndarray):
        return _array_size(item, seen)
    if isinstance(item, memoryview):
        return item.nbytes + sys.getsizeof(b"")
    if type(item).__module__.startswith("pyarrow"):  # No other class is asked for an attribute.
        nbytes = getattr(item, "get_total_buffer_size", None)
        if nbytes is not None:
            return int(nbytes())
    return sys.getsizeof(item)


def _array_size(item: Any, seen: set[int]) -> int:
    owner = item
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    if owner is not item and id(owner) in seen:
        return sys.getsizeof(item) if item.base is None else 0
    seen.add(id(owner))
    return int(owner.nbytes) + 128


def _children(item: Any) -> list[Any]:
    if isinstance(item, dict):
        return [*item.keys(), *item.values()]
    if isinstance(item, _CONTAINERS):
        return list(item)
    if isinstance(item, np.ndarray):
        return list(item.reshape(-1)) if item.dtype == object else []
    state = getattr(item, "__dict__", None) if type(item).__dictoffset__ else None
    return list(state.values()) if type(state) is dict else []
