"""Makes every checksum of this process one number; import it before any module of the package.

A damaged byte then gets as far as it would with an attacker who computes the sums anew.
"""

from __future__ import annotations

import zlib
from typing import Any

import xxhash

SUM = 0x1234567


class ConstantSum:
    """A hasher whose every digest is the same."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def update(self, data: Any) -> None:
        """Forget the data."""

    def intdigest(self) -> int:
        """Return the one number."""
        return SUM

    def digest(self) -> bytes:
        """Return it as bytes."""
        return SUM.to_bytes(8, "big")

    def hexdigest(self) -> str:
        """Return it as text."""
        return self.digest().hex()


for _name in ("xxh3_64_intdigest", "xxh64_intdigest"):
    setattr(xxhash, _name, lambda *_, **__: SUM)
for _name in ("xxh3_64_hexdigest", "xxh64_hexdigest"):
    setattr(xxhash, _name, lambda *_, **__: f"{SUM:016x}")
for _name in ("xxh3_128_digest", "xxh128_digest"):
    setattr(xxhash, _name, lambda *_, **__: SUM.to_bytes(16, "big"))
for _name in ("xxh3_64", "xxh64", "xxh3_128", "xxh128"):
    setattr(xxhash, _name, ConstantSum)
zlib.crc32 = lambda data, value=0: SUM  # type: ignore[assignment]

from memories.snapshot import checksum  # noqa: E402

for _name in [name for name in vars(checksum) if "crc" in name.lower() and name[0] != "_"]:
    setattr(checksum, _name, lambda *_, **__: SUM)
