"""How the hot tier keeps a payload in the memory of an accelerator.

Not the accelerator: that is a `Device`. The one idea: bytes cross over only after their room was
reserved, so a converted payload still lies where it lay, and `keep` is what moves it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from memories import codecs
from memories.codecs.base import carries_code
from memories.devices.base import Device
from memories.engine.device_payload import DevicePayload
from memories.engine.host_limits import ENTRY_BYTES
from memories.engine.payload import Payload
from memories.engine.tier_storage import HostStorage
from memories.model.entry import Entry
from memories.model.record import Version
from memories.model.tiers import Form, TierName

MIN_BYTES = 64 << 10  # A host value below this is answered faster from RAM than over a bus.


class DeviceStorage(HostStorage):
    """Device memory for values that live on the device, and for all that are large.

    Small values of the host, immutable objects and pickled ones stay live in RAM, on the account of
    the tier, for no device could do anything with them.
    """

    form = Form.DEVICE

    def __init__(self, tier: TierName, *, device: Device, **works: Any) -> None:
        super().__init__(tier, **works)
        self.device = device

    def suits(self, payload: Payload) -> bool:
        """Return whether some of the value lives on this very device, wherever it lies now."""
        described = payload.described()
        return described is not None and self.device.name in codecs.homes(described)

    def convert(self, payload: Payload, version: Version) -> Payload:
        """Return what `keep` will bring over; nothing crosses to the device here."""
        if not self._crosses(payload):
            return super().convert(payload, version)
        parts = payload.lying(self._trust)
        size = DevicePayload.size(parts) + ENTRY_BYTES
        return Payload(Form.DEVICE, payload.sharing, parts, size, payload.codec)

    def keep(
        self,
        payload: Payload,
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
        if isinstance(payload.content, codecs.Parts):
            payload = replace(payload, content=DevicePayload.settle(payload.content, self.device))
        return super().keep(payload, version, hits=hits, backed=backed, archived=archived)

    def _crosses(self, payload: Payload) -> bool:
        if payload.sharing is codecs.Sharing.SHARED or carries_code(payload.codec):
            return False
        return payload.host_size >= MIN_BYTES or self.suits(payload)
