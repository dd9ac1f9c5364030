"""The codec of CuPy arrays: dtype, shape and order, and the device memory as one buffer."""

from __future__ import annotations

from typing import Any

from memories.codecs import dtypes
from memories.codecs.arrays import ArrayCodec, order_of, read_meta
from memories.codecs.base import Codec, DeviceBuffer, Parts
from memories.codecs.buffers import EMPTY, view_bytes
from memories.codecs.registry import add
from memories.foundation.optional_imports import package


class CupyCodec(Codec):
    """CuPy arrays of plain dtypes on any device."""

    name = "cupy.array"

    def encode(self, value: Any) -> Parts:
        """Describe the array and its device memory; only a strided array is copied."""
        cupy = package("cupy")
        contiguous = value.flags.c_contiguous or value.flags.f_contiguous
        array = value if contiguous else cupy.ascontiguousarray(value)
        meta = {
            "dtype": dtypes.describe(value.dtype),
            "shape": list(value.shape),
            "order": order_of(array),
            "device": f"cuda:{value.device.id}",
        }
        owned = frozenset[int]() if contiguous else frozenset({0})
        far = {0: _device_buffer(cupy, array, meta["device"])} if value.nbytes else {}
        return Parts(self.name, meta, (EMPTY,), owned, far)

    def decode(self, parts: Parts, *, writable: bool = False) -> Any:
        """Return the array over its device memory, or a copy on the current device."""
        del writable
        cupy = package("cupy")
        if not parts.far:
            return cupy.array(ArrayCodec().decode(parts), order="K")
        dtype, shape, order = read_meta(parts)
        memory = parts.far[0].memory
        flat = memory if isinstance(memory, cupy.ndarray) else cupy.from_dlpack(memory)
        array = flat.view(dtype)
        return array.reshape(shape[::-1]).T if order == "F" else array.reshape(shape)

    def home(self, meta: Any) -> str:
        """Return the device of the array; the first one where an early version stored none."""
        return str(meta.get("device", "cuda:0"))


def _device_buffer(cupy: Any, array: Any, device: str) -> DeviceBuffer:
    flat = (array if array.flags.c_contiguous else array.T).reshape(-1).view("u1")
    return DeviceBuffer(
        memory=flat,
        nbytes=flat.size,
        device=device,
        address=flat.data.ptr,
        fetch=lambda: view_bytes(cupy.asnumpy(flat)),
    )


def register() -> None:
    """Register the codec of CuPy."""
    add(CupyCodec(), package("cupy").ndarray)
