"""A 64-bit hash of a key that is the same in every process; it is not cryptographic.

Ghosts and samples store this hash instead of the key: it takes 8 bytes at any length of the key,
and a replay of the same trace makes the same decisions.
"""

from __future__ import annotations

from collections.abc import Sequence

from xxhash import xxh3_64_intdigest

EVERY_DIGEST = 1 << 64  # Every digest is below.
LONGEST_NAME = 64


def digest(key: str) -> int:
    """Return 64 bits that stand for `key`."""
    return xxh3_64_intdigest(key.encode("utf-8", "surrogatepass"))


def digests(keys: Sequence[str]) -> list[int]:
    """Return the digest of each key."""
    try:
        return [xxh3_64_intdigest(key.encode()) for key in keys]
    except UnicodeEncodeError:
        return [digest(key) for key in keys]


def short_name(key: str, bits: int) -> str:
    """Return a short name for the key whose digest is `bits`: the key itself unless it is long."""
    return key if len(key) <= LONGEST_NAME else f"{bits:016x}"
