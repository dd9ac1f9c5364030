"""How the hot tier keeps a payload in the memory of an accelerator.

Not the accelerator: that is a `Device`. The one idea: bytes cross over only after their room was
reserved, so a converted parcel still lies where it lay, and `keep` is what moves it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from memories import codecs
from memories.codecs.base import carries_code
from memories.devices.base import Device
from memories.engine.device_payload import Resident
from memories.engine.host_limits import ENTRY_BYTES
from memories.engine.payload import Parcel
from memories.engine.tier_storage import HostMedium
from memories.model.entry import Entry, Form, TierName, Version

MIN_BYTES = 64 << 10  # A host value below this is answered faster from RAM than over a bus.


class DeviceMedium(HostMedium):
    """Device memory for values that live on the device, and for all that are large.

    Small values of the host, immutable objects and pickled ones stay live in RAM, on the account of
    the tier, for no device could do anything with them.
    """

    form = Form.DEVICE

    def __init__(self, tier: TierName, *, device: Device, **works: Any) -> None:
        super().__init__(tier, **works)
        self.device = device

    def suits(self, parcel: Parcel) -> bool:
        """Return whether some of the value lives on this very device, wherever it lies now."""
        described = parcel.described()
        return described is not None and self.device.name in codecs.homes(described)

    def convert(self, parcel: Parcel, version: Version) -> Parcel:
        """Return what `keep` will bring over; nothing crosses to the device here."""
        if not self._crosses(parcel):
            return super().convert(parcel, version)
        parts = parcel.lying(self._trust)
        size = Resident.size(parts) + ENTRY_BYTES
        return Parcel(Form.DEVICE, parcel.sharing, parts, size, parcel.codec)

    def keep(
        self,
        parcel: Parcel,
        version: Version,
        *,
        hits: int,
        backed: TierName | None,
        archived: bytes,
    ) -> Entry:
        """Bring the payload onto the device and return a new entry around it.

        Raises:
            DeviceFullError: the device has no room, whatever leaves it.
            DeviceLostError: it failed.
        """
        if isinstance(parcel.payload, codecs.Parts):
            parcel = replace(parcel, payload=Resident.settle(parcel.payload, self.device))
        return super().keep(parcel, version, hits=hits, backed=backed, archived=archived)

    def _crosses(self, parcel: Parcel) -> bool:
        if parcel.sharing is codecs.Sharing.SHARED or carries_code(parcel.codec):
            return False
        return parcel.host_size >= MIN_BYTES or self.suits(parcel)
