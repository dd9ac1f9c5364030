"""A payload and its form, in motion between tiers: the only converter.

Not a place: it holds what it carries for as long as the move takes. A tier asks it for its own home
form, so that a move costs just what it must: nothing between tiers of one form, an encode on
the way down, a decode on the way up, a byte copy between tiers of frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from memories import codecs
from memories.codecs.base import Sharing
from memories.engine.device_payload import DevicePayload
from memories.engine.host_limits import ENTRY_BYTES
from memories.frames.range_reader import Fetch, open_partial
from memories.frames.reader import OpenFrame, open_frame
from memories.frames.recompress import recompress
from memories.frames.signing import Keyring
from memories.frames.writer import pack
from memories.model.entry import ArrayEntry, Entry, ExpiringEntry, PartsEntry, SharedEntry
from memories.model.tiers import Form


@dataclass(frozen=True, slots=True)
class Payload:
    """One value in one form.

    `content` is, in HOST form, the object itself (`SHARED`), a read-only array (`VIEW`) or
    `Held` parts (`FRESH`); in DEVICE form a `DevicePayload`, or the `Parts` that lie elsewhere;
    in ENCODED form a `Frame` just packed or an `OpenFrame` just read, both of which list their
    `segments`. `size` is what it takes in that form.
    """

    form: Form
    sharing: Sharing
    content: Any
    size: int
    codec: str

    @classmethod
    def of(cls, value: Any, *, copy: bool = True) -> Self:
        """Take in a caller's value, in HOST form, in memory of its own.

        With `copy=False` the caller's buffers are taken over as they are.

        Raises:
            UnsupportedTypeError: the value cannot be serialised.
        """
        return cls._around(*codecs.hold(value, copy=copy))

    @classmethod
    def borrowed(cls, value: Any) -> Self:
        """Take in a caller's value as it lies, for a tier of frames: to be written at once.

        Raises:
            UnsupportedTypeError: the value cannot be serialised.
        """
        return cls._around(*codecs.borrow(value))

    @classmethod
    def _around(cls, sharing: Sharing, payload: Any, nbytes: int) -> Self:
        form = Form.DEVICE if isinstance(payload, codecs.Parts) else Form.HOST
        return cls(form, sharing, payload, nbytes + ENTRY_BYTES, _codec_of(payload))

    @classmethod
    def of_frame(cls, buffer: memoryview, *, key: str) -> Self:
        """Take in frame bytes, unverified as yet.

        Raises:
            CorruptDataError: the head is damaged or names another key.
        """
        frame = open_frame(buffer, key=key)
        sharing = codecs.get(frame.codec).sharing
        return cls(Form.ENCODED, sharing, frame, frame.nbytes, frame.codec)

    @classmethod
    def of_parts(cls, fetch: Fetch, nbytes: int, *, key: str) -> Self:
        """Take up a frame that stays where it is; only regions can be read of it.

        Raises:
            CorruptDataError: the head is damaged or names another key.
        """
        frame = open_partial(fetch, nbytes, key=key)
        sharing = codecs.get(frame.codec).sharing
        return cls(Form.ENCODED, sharing, frame, frame.nbytes, frame.codec)

    @classmethod
    def of_entry(cls, entry: Entry) -> Self:
        """Take up what a volatile entry holds, without a copy."""
        payload = entry.payload
        if isinstance(payload, DevicePayload):
            sharing = codecs.get(payload.codec).sharing
            return cls(Form.DEVICE, sharing, payload, entry.size, payload.codec)
        kind = type(entry.inner if isinstance(entry, ExpiringEntry) else entry)
        return cls(Form.HOST, _SHARING[kind], payload, entry.size, _codec_of(payload))

    @property
    def host_size(self) -> int:
        """Return the bytes it would take in HOST form."""
        if self.form is not Form.ENCODED:
            return self.size
        return int(self.content.raw_nbytes) + ENTRY_BYTES

    def hosted(self, trust: Keyring, *, verify: bool = True, copy: bool = True) -> Payload:
        """Return it in HOST form, in memory of its own, or with `copy=False` in that of the frame.

        Raises:
            CorruptDataError: the frame is damaged.
            UntrustedDataError: it would run code and no trusted key has signed it.
        """
        if self.form is Form.HOST:
            return self
        sharing, payload, nbytes = codecs.keep(self.parts(trust, verify=verify), copy=copy)
        return Payload(Form.HOST, sharing, payload, nbytes + ENTRY_BYTES, self.codec)

    def framed(self, *, key: str, version: int, compression: str, trust: Keyring) -> Payload:
        """Return it as a frame bound to `key` and `version`; a frame stays as it is."""
        if self.form is Form.ENCODED:
            return self
        parts = self.parts(trust)
        frame = pack(parts, key=key, version=version, compression=compression, signer=trust)
        return Payload(Form.ENCODED, self.sharing, frame, frame.nbytes, self.codec)

    def archived(self, compression: str) -> Payload:
        """Return a frame that was just read in fewer bytes, or as it is where that saves little.

        Raises:
            CorruptDataError: the frame is damaged.
        """
        if not isinstance(self.content, OpenFrame):
            return self
        frame = recompress(self.content, compression)
        if frame is None:
            return self
        return Payload(Form.ENCODED, self.sharing, frame, frame.nbytes, self.codec)

    def value(self, trust: Keyring, *, verify: bool = True) -> Any:
        """Return what a reader gets, over the memory that the payload lies in."""
        if self.form is Form.HOST:
            return _OPENERS[self.sharing](self.content)
        if isinstance(self.content, DevicePayload):
            return self.content.open()
        return codecs.decode(self.parts(trust, verify=verify))

    def lying(self, trust: Keyring) -> codecs.Parts:
        """Return it taken apart, with what a caller has on a device still lying there."""
        return self.content if isinstance(self.content, codecs.Parts) else self.parts(trust)

    def described(self) -> codecs.Parts | None:
        """Return its description if that is at hand; None for live objects and frames."""
        if isinstance(self.content, codecs.Parts):
            return self.content
        parts = getattr(self.content, "parts", None)
        return parts if isinstance(parts, codecs.Parts) else None

    def on(self, device: str, trust: Keyring, *, verify: bool = True) -> Any:
        """Return a reader's own value, with everything that can live on `device` living there."""
        if self.sharing is not Sharing.FRESH:
            return self.private(trust, verify=verify)
        if isinstance(self.content, DevicePayload):
            return self.content.on(device)
        parts = codecs.rehomed(self.parts(trust, verify=verify), device)
        return codecs.decode(codecs.thaw(parts), writable=True)

    def lent(self, trust: Keyring, *, verify: bool = True) -> Any:
        """Return what a reader gets who vouches not to write to it: nothing is cloned for him."""
        if isinstance(self.content, DevicePayload | codecs.Held):
            return self.content.lend()
        return self.value(trust, verify=verify)

    def parts(self, trust: Keyring, *, verify: bool = True) -> codecs.Parts:
        """Return it taken apart, in the host's memory; a frame's buffers lie where the frame does.

        Raises:
            CorruptDataError: the frame is damaged.
            UntrustedDataError: it would run code and no trusted key has signed it.
        """
        payload = self.content
        if isinstance(payload, DevicePayload):
            return payload.host()
        if isinstance(payload, codecs.Parts):
            return codecs.fetch(payload)
        if isinstance(payload, codecs.Held):
            return payload.parts
        if self.form is Form.ENCODED:
            opened: codecs.Parts = payload.parts(verify=verify, verifier=trust)
            return opened
        return codecs.encode(payload)

    def private(self, trust: Keyring, *, verify: bool = True) -> Any:
        """Return a copy that the reader may change."""
        if self.form is Form.HOST and self.sharing is Sharing.VIEW:
            return self.content.copy(order="K")
        if self.form is Form.HOST and self.sharing is Sharing.SHARED:
            return self.content
        if self.form is Form.DEVICE and self.sharing is Sharing.FRESH:
            return self.content.open()
        parts = self.parts(trust, verify=verify)
        return codecs.decode(codecs.thaw(parts), writable=True)

    def entry_type(self) -> type[Entry]:
        """Return the kind of entry that hands out this payload."""
        return PartsEntry if self.form is Form.DEVICE else _ENTRIES[self.sharing]


def _codec_of(payload: Any) -> str:
    if isinstance(payload, codecs.Held):
        return payload.parts.codec
    if isinstance(payload, codecs.Parts):
        return payload.codec
    return codecs.find(payload).name


def owners(payload: Any) -> Iterator[Any]:
    """Yield the objects whose death frees the memory of a HOST payload."""
    if isinstance(payload, DevicePayload):
        yield from payload.owners()
    elif isinstance(payload, codecs.Held):
        seen = {id(buffer.obj): buffer.obj for buffer in payload.parts.buffers}
        yield from seen.values()
    elif isinstance(payload, np.ndarray):
        yield _root(payload)


def _root(array: Any) -> Any:
    """Return the object that owns an array's memory: views of a view refer to it directly.

    Over `bytes`, which no weak reference can watch, it is the array: its views refer to that one.
    """
    while True:
        base = array.obj if isinstance(array, memoryview) else getattr(array, "base", None)
        if base is None or type(base) is bytes:
            return array
        array = base


_ENTRIES: dict[Sharing, type[Entry]] = {
    Sharing.SHARED: SharedEntry,
    Sharing.VIEW: ArrayEntry,
    Sharing.FRESH: PartsEntry,
}
_SHARING = {entry: sharing for sharing, entry in _ENTRIES.items()}
_OPENERS = {
    Sharing.SHARED: lambda payload: payload,
    Sharing.VIEW: lambda payload: payload.view(),
    Sharing.FRESH: lambda payload: payload.open(),
}
