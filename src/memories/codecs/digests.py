"""Combines the hashes of the parts of a value into one hash."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from xxhash import xxh3_128_digest

WIDTH: Final = 16  # Of a hash, in bytes.
_WIDTH: Final = WIDTH.to_bytes(8, "little")


def hash_all(mark: bytes, digests: Iterable[bytes]) -> bytes:
    """Return one digest of several, each with its length, and of a mark that names their kind."""
    parts = [len(mark).to_bytes(4, "little"), mark]
    for digest in digests:
        parts.append(_WIDTH if len(digest) == WIDTH else len(digest).to_bytes(8, "little"))
        parts.append(digest)
    return xxh3_128_digest(b"".join(parts))
