"""Converts an array of one library to one of another, without a copy where DLPack allows it.

One dense array becomes one dense array; dtypes and containers are not converted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from memories.devices import Device
from memories.errors import InvalidOptionError
from memories.foundation.optional_imports import require

LIBRARIES = ("torch", "cupy", "jax", "numpy")


def convert_array(value: Any, like: Any, device: str | None) -> Any:
    """Return `value`, a private copy, as an array of the library `like` on `device`.

    Args:
        value: An array of NumPy, torch, CuPy or JAX.
        like: The library, or its name.
        device: `"cpu"`, `"cuda:0"`, or None for its present device, if the library supports it.

    Raises:
        InvalidOptionError: the library or device is unknown, or `value` is not an array.
        MissingPackageError: the library is not installed.
    """
    name = str(getattr(like, "__name__", like)).partition(".")[0]
    if name not in LIBRARIES:
        raise InvalidOptionError(f"like={like!r:.60} must be one of {', '.join(LIBRARIES)}")
    if type(value).__module__.partition(".")[0] not in {*LIBRARIES, "jaxlib"}:
        raise InvalidOptionError(
            f"like={name!r} needs a value that is one array, and this is a {type(value).__name__}"
        )
    library = np if name == "numpy" else require(name, extra="gpu")
    try:
        return _CONVERTERS[name](library, value, device)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise InvalidOptionError(
            f"the value cannot be given to {name} on {device or 'its own device'}: {error}"
        ) from error


def library_of(device: Device | None) -> str:
    """Return the library of arrays on the device of the hot tier.

    Raises:
        InvalidOptionError: there is no device.
    """
    if device is None:
        raise InvalidOptionError(
            "the value is a NumPy array, which cannot be on a device, and this manager has no "
            "device"
        )
    return device.library


def _to_numpy(numpy: Any, value: Any, device: str | None) -> Any:
    if device not in (None, "cpu"):
        raise ValueError("NumPy has no device but the CPU")
    if hasattr(value, "detach"):
        return value.detach().resolve_conj().resolve_neg().cpu().numpy()
    return value.get() if hasattr(value, "get") else numpy.array(value)


def _to_torch(torch: Any, value: Any, device: str | None) -> Any:
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    tensor = value if isinstance(value, torch.Tensor) else torch.from_dlpack(value)
    return tensor if device is None else tensor.to(device)


def _to_cupy(cupy: Any, value: Any, device: str | None) -> Any:
    if device == "cpu":
        raise ValueError("arrays of CuPy are on a GPU")
    with cupy.cuda.Device(int((device or "").partition(":")[2] or 0)):
        copies = isinstance(value, np.ndarray) or not hasattr(value, "__dlpack__")
        return cupy.asarray(value) if copies else cupy.from_dlpack(value)


def _to_jax(jax: Any, value: Any, device: str | None) -> Any:
    if hasattr(value, "detach"):
        value = value.detach()
    array = (
        jax.numpy.array(value) if isinstance(value, np.ndarray) else jax.dlpack.from_dlpack(value)
    )
    if device is None:
        return array
    kind, _, index = device.partition(":")
    return jax.device_put(array, jax.devices("cpu" if kind == "cpu" else "gpu")[int(index or 0)])


_CONVERTERS = {"numpy": _to_numpy, "torch": _to_torch, "cupy": _to_cupy, "jax": _to_jax}
