"""Memory of accelerators: allocate, fill, copy and read it, through torch or CuPy.

Device memory is a flat array of bytes of the library. Values, keys and tiers are unknown here.
"""

from __future__ import annotations

from memories.devices.base import Device, DeviceFullError, DeviceLostError
from memories.devices.discovery import find_device

__all__ = ["Device", "DeviceFullError", "DeviceLostError", "find_device"]
