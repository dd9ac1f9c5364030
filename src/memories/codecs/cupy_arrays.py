"""CuPy arrays, by way of the host.

Not a transfer engine: tiers that keep device memory have `devices`. The one idea: an array that
left its device is a NumPy array that knows it goes back to CuPy.
"""

from __future__ import annotations

from typing import Any

from memories.codecs.arrays import ArrayCodec
from memories.codecs.base import Codec, Parts
from memories.codecs.packages import package
from memories.codecs.registry import add


class CupyCodec(Codec):
    """CuPy arrays of the current device."""

    name = "cupy.array"

    def encode(self, value: Any) -> Parts:
        """Copy the array to the host."""
        host = package("cupy").asnumpy(value, order="A")
        parts = ArrayCodec().encode(host)
        return parts._replace(codec=self.name, owned=frozenset({0}))

    def decode(self, parts: Parts, *, writable: bool = False) -> Any:
        """Copy the array to the current device."""
        del writable
        return package("cupy").array(ArrayCodec().decode(parts), order="K")


def register() -> None:
    """Register the codec of CuPy."""
    add(CupyCodec(), package("cupy").ndarray)
