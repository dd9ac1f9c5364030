"""The options of `retrieve`: a part of an array, a private copy, a device, another library.

Each option is applied to the payload that holds the value, so it means the same in every tier.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from memories.engine.payload import Payload
from memories.errors import InvalidOptionError
from memories.frames.signing import Keyring

if TYPE_CHECKING:
    from memories.devices import Device

_OWN = bytes | bytearray | int  # What every reader of a region of bytes owns.


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a value is returned.

    Attributes:
        region: An index of an array, bytes or a bytearray: only this part is read.
        copy: True for a private copy, False for the stored memory itself, None for the default.
        device: `"cpu"` or `"cuda:0"`: where the value lies.
        like: The array library, or its name.
    """

    region: Any = None
    copy: bool | None = None
    device: str | None = None
    like: Any = None

    def __post_init__(self) -> None:
        """Raise InvalidOptionError where options contradict each other."""
        if self.copy not in (None, True, False):
            raise InvalidOptionError(f"copy={self.copy!r} must be True, False or None")
        if self.region is not None and (self.device is not None or self.like is not None):
            raise InvalidOptionError(
                "region= is read on the host; give it without device= and like="
            )
        if self.device is not None and not isinstance(self.device, str):
            raise InvalidOptionError(f"device={self.device!r:.60} must be 'cpu' or 'cuda:0'")

    @property
    def are_defaults(self) -> bool:
        """Return whether no option is given."""
        return all(one is None for one in (self.region, self.copy, self.device, self.like))

    @property
    def whole(self) -> bool:
        """Return whether the whole value is read, and therefore verified."""
        return self.region is None

    def apply(
        self, key: str, payload: Payload, verify: bool, trust: Keyring, device: Device | None
    ) -> Any:
        """Return the value of `payload` as these options ask for it; `key` is for messages."""
        if self.region is not None:
            part = payload.region(self.region, trust, key=key)
            return np.array(part) if self.copy and not isinstance(part, _OWN) else part
        if self.device is not None or self.like is not None:
            return self._converted(payload, verify, trust, device)
        if self.copy:
            return payload.open_copy(trust, verify=verify)
        return payload.open_shared(trust, verify=verify)

    def _converted(
        self, payload: Payload, verify: bool, trust: Keyring, device: Device | None
    ) -> Any:
        from memories.core.array_interop import convert_array, library_of

        if self.device is None:
            value = payload.open_copy(trust, verify=verify)
        else:
            value = payload.open_on(self.device, trust, verify=verify)
        like = self.like
        if like is None and self.device != "cpu" and isinstance(value, np.ndarray):
            like = library_of(device)
        return value if like is None else convert_array(value, like, self.device)
