"""The codec of JAX arrays: those on one GPU by their device memory, all others by host memory.

Tracers, and arrays that are sharded across processes, are not supported.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from memories.codecs import dtypes
from memories.codecs.arrays import ArrayCodec, bytes_of, read_meta
from memories.codecs.base import Codec, DeviceBuffer, Parts
from memories.codecs.buffers import EMPTY
from memories.codecs.registry import add
from memories.errors import UnsupportedTypeError
from memories.foundation.optional_imports import package


class JaxCodec(Codec):
    """Concrete JAX arrays of plain dtypes."""

    name = "jax.array"
    private = True

    def encode(self, value: Any) -> Parts:
        """Describe the array and its memory; a sharded array is gathered on the host."""
        jax = package("jax")
        if isinstance(value, jax.core.Tracer) or jax.dtypes.issubdtype(
            value.dtype, jax.dtypes.extended
        ):
            raise UnsupportedTypeError(
                f"a JAX value of dtype {value.dtype} cannot be stored: store a concrete array "
                "(of a random key, its jax.random.key_data)"
            )
        device = _device_of(value)
        if device is not None and value.nbytes:
            meta = {
                "dtype": dtypes.describe(value.dtype),
                "shape": list(value.shape),
                "order": "C",
                "device": device,
                "weak": bool(value.weak_type),
            }
            far = {0: _device_buffer(value, device)}
            return Parts(self.name, meta, (EMPTY,), frozenset(), far)
        parts = ArrayCodec().encode(np.ascontiguousarray(value).reshape(value.shape))
        return parts._replace(codec=self.name, meta={**parts.meta, "weak": bool(value.weak_type)})

    def decode(self, parts: Parts, *, writable: bool = False) -> Any:
        """Return a private array, on its own device if its memory is there, else the default."""
        if parts.far:
            dtype, shape, _ = read_meta(parts)
            flat = package("jax.numpy").from_dlpack(parts.far[0].memory)
            return flat.view(dtype).reshape(shape)
        host = ArrayCodec().decode(parts, writable=writable)
        value = _from_host(host) if writable else package("jax.numpy").array(host, copy=True)
        if value.dtype != host.dtype:
            raise UnsupportedTypeError(
                f"the stored JAX array is of {host.dtype}, which this process does not allow: "
                'call jax.config.update("jax_enable_x64", True) first'
            )
        return value

    def home(self, meta: Any) -> str | None:
        """Return the device of an array that was stored from one."""
        device = meta.get("device")
        return None if device is None else str(device)


def _device_of(value: Any) -> str | None:
    """Return the one GPU that has the whole array; None for host memory and sharded arrays."""
    devices = list(value.devices())
    if len(devices) != 1 or devices[0].platform not in ("gpu", "cuda", "rocm"):
        return None
    return f"cuda:{devices[0].local_hardware_id}"


def _device_buffer(value: Any, device: str) -> DeviceBuffer:
    return DeviceBuffer(
        memory=value,
        nbytes=value.nbytes,
        device=device,
        address=value.unsafe_buffer_pointer(),
        fetch=lambda: bytes_of(np.array(value)),
    )


def _from_host(host: Any) -> Any:
    """Return an array over private memory; a copy where DLPack lacks the dtype."""
    jax_numpy = package("jax.numpy")
    if host.nbytes and host.dtype.type.__module__ == "numpy":
        return jax_numpy.from_dlpack(host)
    return jax_numpy.array(host, copy=True)


def register() -> None:
    """Register the codec of JAX."""
    add(JaxCodec(), type(package("jax.numpy").zeros(())))
