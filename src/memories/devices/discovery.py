"""Find the device for the hot tier, and the library through which it is used.

A library that the process has imported already is preferred, torch before CuPy: the hot tier then
shares the allocator of the program. With `"auto"` nothing is imported.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from typing import Any

from memories.devices.base import Device
from memories.errors import InvalidOptionError
from memories.foundation.optional_imports import MissingPackageError, require

_CUDA = re.compile(r"cuda(?::\d+)?")


def find_device(wanted: object) -> Device | None:
    """Return the device that `hot_device` names; None where the hot tier is in RAM.

    Args:
        wanted: `"cpu"` for none, `"auto"` for the current one of a library that is loaded already,
            `"cuda:1"` for that one, or a `Device`.

    Raises:
        InvalidOptionError: there is no such device.
        MissingPackageError: neither torch nor CuPy is installed, and a device was named.
    """
    if wanted == "cpu":
        return None
    if isinstance(wanted, Device):
        return wanted
    if wanted == "auto":
        return _loaded_device()
    if not isinstance(wanted, str) or not _CUDA.fullmatch(wanted):
        raise InvalidOptionError(
            f"hot_device={wanted!r:.60} is unknown: use 'auto', 'cpu' or 'cuda:0'"
        )
    return _named_device(wanted if ":" in wanted else f"{wanted}:0")


def _loaded_device() -> Device | None:
    torch, cupy = sys.modules.get("torch"), sys.modules.get("cupy")
    if torch is not None and _torch_count(torch):
        return _through_torch(f"cuda:{torch.cuda.current_device()}")
    if cupy is not None and _cupy_count(cupy):
        return _through_cupy(f"cuda:{cupy.cuda.runtime.getDevice()}")
    return None


def _named_device(name: str) -> Device:
    library = _library()
    count = _torch_count(library) if library.__name__ == "torch" else _cupy_count(library)
    if int(name.partition(":")[2]) >= count:
        raise InvalidOptionError(
            f"hot_device={name!r}: {library.__name__} finds {count or 'no'} CUDA device"
            f"{'' if count == 1 else 's'} here; use 'auto' to do without"
        )
    return _through_torch(name) if library.__name__ == "torch" else _through_cupy(name)


def _library() -> Any:
    """Return torch or CuPy, whichever is loaded, else whichever is installed."""
    for name in ("torch", "cupy"):
        if name in sys.modules:
            return sys.modules[name]
    for name in ("torch", "cupy"):
        if importlib.util.find_spec(name) is not None:
            return require(name, extra="gpu")
    raise MissingPackageError(
        "a GPU is reached through torch or CuPy, and neither is installed; "
        "run: pip install torch, or pip install cupy-cuda12x"
    )


def _torch_count(torch: Any) -> int:
    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0


def _cupy_count(cupy: Any) -> int:
    try:
        return int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError:
        return 0  # CuPy raises this where there is no driver, or no device.


def _through_torch(name: str) -> Device:
    from memories.devices.torch_device import TorchDevice

    return TorchDevice(name)


def _through_cupy(name: str) -> Device:
    from memories.devices.cupy_device import CupyDevice

    return CupyDevice(name)
