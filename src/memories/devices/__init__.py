"""Memory of accelerators: filled, copied and read back, through whichever library is there.

Nothing here knows of values, keys or tiers. The one idea: a device hands out flat stretches of
bytes, and all that is asked of a library is five ways to move them.
"""

from __future__ import annotations

from memories.devices.base import Device, DeviceFullError, DeviceLostError
from memories.devices.discovery import find_device

__all__ = ["Device", "DeviceFullError", "DeviceLostError", "find_device"]
