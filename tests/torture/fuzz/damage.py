"""How bytes and documents are damaged."""

from __future__ import annotations

import copy
import random
import struct
from collections.abc import Iterator
from typing import Any

NUMBERS = (0, 1, 2**31 - 1, 2**32 - 1, 2**62, 2**63, 2**64 - 1)
LEAVES = (
    None, True, 0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 0.5, -0.0, 1e308, 5e-324, "", "x",
    "0", "\x1b]0;t\x07", "<script>alert(1)</script>", "\u202e", "a\nb", "[/x]", "1e9", "-1",
    "x" * 5000, [], {}, [None], {"": None}, [[[]]], ["x"] * 200,
)  # fmt: skip


def damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    """Return other bytes, numbers or a piece in the place of some, or fewer bytes."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if len(changed) < 16:
            break
        # Heads, tables and ends matter more than what values hold.
        near = rng.choice([256, 4096, len(changed)])
        at = rng.randrange(min(near, len(changed)))
        at = at if rng.random() < 0.5 else len(changed) - 1 - at
        kind = rng.random()
        if kind < 0.5:
            changed[at] = rng.randrange(256)
        elif kind < 0.8:
            number = rng.choice([*NUMBERS, rng.randrange(len(changed))])
            struct.pack_into("<Q", changed, max(0, min(at // 8 * 8, len(changed) - 8)), number)
        elif kind < 0.95:
            piece = changed[rng.randrange(len(changed)) :][: rng.choice([4, 8, 64])]
            changed[at : at + len(piece)] = piece[: len(changed) - at]
        else:
            del changed[at:]
    return bytes(changed)


def damaged_document(document: Any, rng: random.Random) -> Any:
    """Return a copy of nested lists and dicts with other things in one to three places."""
    changed = copy.deepcopy(document)
    for _ in range(rng.randint(1, 3)):
        places = list(_places(changed))
        if not places:
            return changed
        container, name = rng.choice(places)
        kind = rng.random()
        if kind < 0.7:
            container[name] = copy.deepcopy(rng.choice(LEAVES))
        elif kind < 0.85:
            other, there = rng.choice(places)
            container[name] = copy.deepcopy(other[there])
        else:
            del container[name]
    return changed


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(document, dict):
        items = list(document.items())
    elif isinstance(document, list):
        items = list(enumerate(document))
    else:
        return
    for name, value in items:
        yield document, name
        yield from _places(value)
