"""The codec of torch tensors and parameters, by their memory.

Tensors that share memory refer to one buffer, and share memory again when they are read together.
Autograd graphs are not stored; of a module, store its `state_dict`. torch trusts shape and strides,
which are compared with the memory here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from memories.codecs.base import Codec, DeviceBuffer, Parts
from memories.codecs.buffers import EMPTY
from memories.codecs.expect import expect, expect_dict, expect_shape
from memories.codecs.pickled import PickleCodec
from memories.codecs.registry import add
from memories.errors import CorruptDataError
from memories.foundation.optional_imports import package


class TorchCodec(Codec):
    """Strided tensors of every dtype on any device; sparse and quantised ones are pickled."""

    name = "torch.tensor"
    private = True

    def encode(self, value: Any) -> Parts:
        """Describe a tensor and its memory, on any device; one with gaps is made dense first."""
        torch = package("torch")
        if not _is_plain(torch, value):
            return PickleCodec().encode(value)
        detached = value.detach()
        dense, strides = _dense(detached)
        dense = dense.resolve_conj().resolve_neg()
        copied = dense.data_ptr() != detached.data_ptr()
        meta = {
            "dtype": str(value.dtype).removeprefix("torch."),
            "shape": list(value.shape),
            "strides": strides,
            "device": str(value.device),
            "grad": bool(value.requires_grad),
            "parameter": type(value) is torch.nn.Parameter,
        }
        owned = frozenset({0}) if copied else frozenset()
        if dense.device.type == "cpu" or not dense.numel():
            return Parts(self.name, meta, (_bytes(torch, dense),), owned)
        return Parts(self.name, meta, (EMPTY,), owned, {0: _device_buffer(torch, dense)})

    def decode(self, parts: Parts, *, writable: bool = False) -> Any:
        """Return a tensor over private memory, on its own device if this machine has it."""
        torch = package("torch")
        if parts.far:
            memory = parts.far[0].memory
            own = memory if isinstance(memory, torch.Tensor) else torch.from_dlpack(memory)
            return build(torch, own, parts.meta)
        (buffer,) = parts.buffers
        memory = np.frombuffer(buffer, np.uint8) if buffer.nbytes else np.empty(0, np.uint8)
        # A tensor cannot be made read-only, so shared memory is copied.
        return build(torch, torch.from_numpy(memory if writable else memory.copy()), parts.meta)

    def home(self, meta: Any) -> str:
        """Return the device of the tensor."""
        return str(meta["device"])

    def rehome(self, meta: Any, device: str) -> Any:
        """Return the description of the tensor on another device."""
        return {**meta, "device": device}


def build(torch: Any, memory: Any, meta: Any) -> Any:
    """Return the tensor that `meta` describes over `memory`, a tensor of bytes.

    Raises:
        CorruptDataError: the description and the memory do not match.
    """
    names = ("dtype", "shape", "strides", "device", "grad", "parameter")
    expect_dict(meta, names, "a tensor")
    dtype = vars(torch).get(expect(meta["dtype"], str, "a dtype"))
    if not isinstance(dtype, torch.dtype):
        raise CorruptDataError(f"torch has no dtype {str(meta['dtype'])[:40]!r}")
    shape = expect_shape(meta["shape"], "a tensor")
    strides = expect_shape(meta["strides"], "a tensor")
    count = _span(shape, strides)
    # A stride of 0 would make any number of items of one.
    if count * dtype.itemsize != memory.numel() or count != math.prod(shape):
        raise CorruptDataError(f"a tensor of shape {shape} does not fit its memory")
    flat = memory.view(dtype) if memory.numel() else torch.empty(0, dtype=dtype)
    tensor = flat.as_strided(shape, strides)
    device = torch.device(meta["device"])
    if device.type != "cpu" and _has(torch, device):
        tensor = tensor.to(device)
    if meta["parameter"]:
        return torch.nn.Parameter(tensor, requires_grad=meta["grad"])
    return tensor.requires_grad_() if meta["grad"] else tensor


def _is_plain(torch: Any, value: Any) -> bool:
    return (
        type(value) in (torch.Tensor, torch.nn.Parameter)
        and value.layout is torch.strided
        and not value.is_quantized
        and not value.is_meta
    )


def _dense(tensor: Any) -> tuple[Any, list[int]]:
    """Return the tensor with its axes in the order of its memory, and its own strides."""
    shape, strides = tuple(tensor.shape), tuple(tensor.stride())
    if tensor.numel() and _span(shape, strides) == tensor.numel() and not tensor.is_conj():
        axes = sorted(range(len(shape)), key=lambda i: (-strides[i], i))
        return tensor.permute(axes), list(strides)
    packed = tensor.contiguous()
    return packed, list(packed.stride())


def _span(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    if 0 in shape:
        return 0
    if min((*strides, 0)) < 0 or min((*shape, 1)) < 0:
        raise CorruptDataError("a stored tensor has negative strides")
    return 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))


def _bytes(torch: Any, host: Any) -> memoryview:
    return memoryview(_flat(torch, host).numpy()) if host.numel() else EMPTY


def _flat(torch: Any, tensor: Any) -> Any:
    """Return the bytes of a dense tensor, in the order of its memory."""
    # An axis of one item may have any stride; the items are contiguous all the same.
    return tensor.contiguous().as_strided((tensor.numel(),), (1,)).view(torch.uint8)


def _device_buffer(torch: Any, tensor: Any) -> DeviceBuffer:
    flat = _flat(torch, tensor)
    return DeviceBuffer(
        memory=flat,
        nbytes=flat.numel(),
        device=str(flat.device),
        address=flat.data_ptr(),
        fetch=lambda: memoryview(flat.cpu().numpy()),
    )


def _has(torch: Any, device: Any) -> bool:
    module = getattr(torch, device.type, None)
    if module is None or not getattr(module, "is_available", lambda: False)():
        return False
    return device.index is None or device.index < module.device_count()


def register() -> None:
    """Register the codec of torch."""
    torch = package("torch")
    add(TorchCodec(), torch.Tensor, torch.nn.Parameter)
