"""Combines the hashes of the parts of a value into one hash."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from xxhash import xxh3_128_digest

WIDTH: Final = 16  # Of a hash, in bytes.
WIDTH_BEFORE: Final = WIDTH.to_bytes(8, "little")  # What `join` puts before a hash.
_MOST_HEADS: Final = 512
_heads: dict[bytes, bytes] = {}


def hash_all(mark: bytes, digests: Iterable[bytes]) -> bytes:
    """Return one digest of several, each with its length, and of a mark that names their kind."""
    return xxh3_128_digest(head_of(mark) + join(digests))


def join(digests: Iterable[bytes]) -> bytes:
    """Return digests behind each other, each with its length before it."""
    parts: list[bytes] = []
    for digest in digests:
        length = len(digest)
        parts.append(WIDTH_BEFORE if length == WIDTH else length.to_bytes(8, "little"))
        parts.append(digest)
    return b"".join(parts)


def head_of(mark: bytes) -> bytes:
    """Return a mark with its length before it."""
    head = _heads.get(mark)
    if head is None:
        if len(_heads) >= _MOST_HEADS:
            _heads.clear()
        head = _heads[mark] = len(mark).to_bytes(4, "little") + mark
    return head
