"""JAX arrays, by way of the host.

Not sharded across processes and not traced: only what this process can see whole. The one idea: an
array that left its device is a NumPy array that knows it goes back to JAX.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from memories.codecs.arrays import ArrayCodec
from memories.codecs.base import Codec, Parts
from memories.codecs.packages import package
from memories.codecs.registry import add
from memories.errors import UnsupportedTypeError


class JaxCodec(Codec):
    """Concrete JAX arrays of plain dtypes."""

    name = "jax.array"

    def encode(self, value: Any) -> Parts:
        """Show the host memory of the array; from a device this is one copy."""
        jax = package("jax")
        if isinstance(value, jax.core.Tracer) or jax.dtypes.issubdtype(
            value.dtype, jax.dtypes.extended
        ):
            raise UnsupportedTypeError(
                f"a JAX value of dtype {value.dtype} cannot be stored: store a concrete array "
                "(of a random key, its jax.random.key_data)"
            )
        parts = ArrayCodec().encode(np.ascontiguousarray(value).reshape(value.shape))
        return parts._replace(codec=self.name, meta={**parts.meta, "weak": bool(value.weak_type)})

    def decode(self, parts: Parts, *, writable: bool = False) -> Any:
        """Return a private array on the default device."""
        del writable
        host = ArrayCodec().decode(parts)
        value = package("jax.numpy").array(host, copy=True)
        if value.dtype != host.dtype:
            raise UnsupportedTypeError(
                f"the stored JAX array is of {host.dtype}, which this process does not allow: "
                'call jax.config.update("jax_enable_x64", True) first'
            )
        return value


def register() -> None:
    """Register the codec of JAX."""
    add(JaxCodec(), type(package("jax.numpy").zeros(())))
