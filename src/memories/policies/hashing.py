"""Sixty-four well-mixed bits of a key, the same in every process.

Not for security. Ghosts and samples remember keys by these bits, so that no key is kept alive for
having been seen, and a replay of the same trace decides the same.
"""

from __future__ import annotations

from xxhash import xxh3_64_intdigest

LONGEST_NAME = 64


def digest(key: str) -> int:
    """Return 64 bits that stand for `key`."""
    return xxh3_64_intdigest(key.encode("utf-8", "surrogatepass"))


def name_of(key: str, bits: int) -> str:
    """Return a short name for the key whose digest is `bits`: the key itself unless it is long."""
    return key if len(key) <= LONGEST_NAME else f"{bits:016x}"
