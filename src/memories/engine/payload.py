"""A value in one of the forms in which tiers hold it, and the conversions between these forms.

A move costs only what the two tiers call for: nothing between tiers of one form, an encoding on the
way down, a decoding on the way up, a copy of bytes between tiers of frames.

Longer than 600 lines because every form is converted to every other one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from sys import getsizeof
from typing import Any, ClassVar, NamedTuple

import numpy as np

from memories import codecs
from memories.codecs.arrays import ArrayCodec
from memories.codecs.base import Sharing
from memories.foundation.host_limits import ENTRY_BYTES
from memories.frames.array_region import check_cut, check_steps, no_region
from memories.frames.compression_history import CompressionHistory
from memories.frames.fast_path import MAX_PACKED_BYTES
from memories.frames.range_reader import Fetch, PartialFrame, open_partial
from memories.frames.reader import OpenFrame, open_frame
from memories.frames.rebind import rebind
from memories.frames.recompress import recompress as recompress_frame
from memories.frames.signing import Keyring
from memories.frames.writer import Frame, PlainValue, pack
from memories.model.entry import (
    ArrayEntry,
    Entry,
    ExpiringEntry,
    PackedEntry,
    PartsEntry,
    SharedEntry,
    unpack,
)
from memories.model.tiers import Form

_new = tuple.__new__  # What a named tuple does, without its argument parsing.
# Codecs whose buffers are the content of a value, and nothing else.
SIZED = frozenset({"bytes", "bytearray", "memoryview", "str", ArrayCodec.name})


class PackedFrame(NamedTuple):
    """A frame that is ready to be written, and what its record says of the value."""

    codec: str
    segments: Sequence[memoryview]
    size: int  # Bytes of the frame.
    host_size: int  # Bytes that the value takes in RAM.


class Payload(ABC):
    """One value in one form. `size` is what it takes there, the entry included in RAM.

    Wherever a method takes `verify`, True checks the bytes of a frame before they are used; a
    payload in RAM or on a device has been checked. All of them may raise:

        CorruptDataError: the frame is damaged.
        UntrustedDataError: it would run code, and no trusted key has signed it.
    """

    __slots__ = ("size",)

    form: ClassVar[Form]
    entry_type: ClassVar[type[Entry]]  # Of the entry that holds it, if one can.

    def __init__(self, size: int) -> None:
        self.size = size

    @staticmethod
    def of(value: Any, *, copy: bool = True) -> Payload:
        """Return a caller's value in memory of its own, in RAM or still on the caller's device.

        With `copy=False` the caller's buffers are taken over as they are.

        Raises:
            UnsupportedTypeError: the value cannot be serialised.
        """
        if copy:
            plain = codecs.own_plain(value)
            if plain is not None:
                return _plain_payload(*plain)
        elif codecs.is_plain_array(value):  # In fewer steps than `own_value` takes.
            return ArrayPayload(codecs.freeze_array(value, copy=False), value.nbytes + ENTRY_BYTES)
        return _payload(*codecs.own_value(value, copy=copy))

    @staticmethod
    def borrowed(value: Any) -> Payload:
        """Return a caller's value over the caller's memory, for a tier that writes it at once.

        Raises:
            UnsupportedTypeError: the value cannot be serialised.
        """
        if codecs.is_plain_array(value):
            return ArrayPayload(value, value.nbytes + ENTRY_BYTES)
        return _payload(*codecs.borrow_value(value))

    @staticmethod
    def of_read(value: Any) -> Payload:
        """Return what a read has made of a frame, which only other reads will share.

        It is an array, bytes or a text. Of an array the reader has another view.
        """
        if codecs.is_plain_array(value) and value.base is not None:
            return ArrayPayload(value.view(), value.nbytes + ENTRY_BYTES)
        return Payload.of(value, copy=False)

    @staticmethod
    def of_object(value: Any) -> Payload:
        """Return a caller's value of a type in `codecs.ALWAYS_SHARED`."""
        return ObjectPayload(value, getsizeof(value) + ENTRY_BYTES)

    @staticmethod
    def of_entry(entry: Entry) -> Payload:
        """Return what an entry holds, without a copy."""
        content = entry.payload
        if isinstance(content, Payload):
            return content  # A value on a device is held as its payload.
        kind = type(entry.inner if isinstance(entry, ExpiringEntry) else entry)
        return _BY_ENTRY[kind](content, entry.size)

    @staticmethod
    def of_frame(
        buffer: memoryview, *, key: str, verified: bool = False, private: bool = False
    ) -> FramePayload:
        """Return the value of a frame, whose body is not verified yet, unless `verified` says so.

        A value that is opened as a copy lies in a `private` buffer itself, if that is writable.

        Raises:
            CorruptDataError: the head is damaged or names another key.
        """
        return FramePayload(open_frame(buffer, key=key, verified=verified, private=private))

    @staticmethod
    def of_ranges(fetch: Fetch, nbytes: int, *, key: str, verified: bool = False) -> FramePayload:
        """Return the value of a frame that stays where it is: only regions can be read of it.

        With `verified` what `fetch` returns needs no verification.

        Raises:
            CorruptDataError: the head is damaged or names another key.
        """
        return FramePayload(open_partial(fetch, nbytes, key=key, verified=verified))

    @property
    @abstractmethod
    def codec(self) -> str:
        """Return the name of the codec of the value."""

    @property
    def sharing(self) -> Sharing:
        """Return what readers of the value may share."""
        return codecs.codec_named(self.codec).sharing

    @property
    def host_size(self) -> int:
        """Return the bytes that it would take in RAM."""
        return self.size

    @property
    def content(self) -> Any:
        """Return what an entry holds of it."""
        return self

    @abstractmethod
    def open(self, trust: Keyring, *, verify: bool = True) -> Any:
        """Return what a reader gets, over the memory of the payload where readers may share it."""

    @abstractmethod
    def parts(self, trust: Keyring, *, verify: bool = True) -> codecs.Parts:
        """Return the value taken apart, in the host's memory."""

    def open_shared(self, trust: Keyring, *, verify: bool = True) -> Any:
        """Return what a reader gets who promises not to write to it: nothing is cloned."""
        return self.open(trust, verify=verify)

    def open_copy(self, trust: Keyring, *, verify: bool = True) -> Any:
        """Return a copy that the reader may change."""
        return codecs.decode(codecs.thaw(self.parts(trust, verify=verify)), writable=True)

    def open_on(self, device: str, trust: Keyring, *, verify: bool = True) -> Any:
        """Return a reader's own value, with everything that can live on `device` living there."""
        if self.sharing is not Sharing.FRESH:
            return self.open_copy(trust, verify=verify)
        parts = codecs.move_home(self.parts(trust, verify=verify), device)
        return codecs.decode(codecs.thaw(parts), writable=True)

    def region(self, index: Any, trust: Keyring, *, key: str) -> Any:
        """Return `value[index]` of an array, bytes or bytearray; only what it touches is read.

        `key` is for the message of an error.

        Raises:
            InvalidOptionError: the value has no regions, or the index does not fit.
            IndexError: it is out of bounds.
        """
        if self.codec != ArrayCodec.name:
            raise no_region(key, self.codec)
        return self.open(trust)[check_steps(index)]

    @property
    def content_bytes(self) -> int | None:
        """Return the length of an array, bytes or a text in UTF-8; None for other values."""
        parts = self.description()
        return parts.nbytes if parts is not None and parts.codec in SIZED else None

    def owners(self) -> Iterable[Any]:
        """Return the objects whose death frees the memory of the payload."""
        return ()

    def description(self) -> codecs.Parts | None:
        """Return the value taken apart if that costs nothing; None for live objects and frames."""
        return None

    def plain(self) -> PlainValue | None:
        """Return the value if it is one of those that `PlainPacker` packs, else None."""
        return None

    def unmoved_parts(self, trust: Keyring) -> codecs.Parts:
        """Return the value taken apart, with what lies on a caller's device still lying there."""
        return self.parts(trust)

    def to_host(self, trust: Keyring, *, verify: bool = True, copy: bool = True) -> Payload:
        """Return it in RAM, in memory of its own, or with `copy=False` in that of the frame."""
        return host_payload(self.parts(trust, verify=verify), copy=copy)

    def to_frame(
        self,
        *,
        key: str,
        version: int,
        compression: str,
        trust: Keyring,
        history: CompressionHistory,
        recompress: bool = False,
    ) -> PackedFrame:
        """Return it as a frame bound to `key` and `version`.

        A frame stays as it is; with `recompress` it is compressed anew where that saves enough.
        """
        del recompress
        parts = self.parts(trust)
        frame = pack(
            parts, key=key, version=version, compression=compression, signer=trust, history=history
        )
        host_size = frame.raw_nbytes + ENTRY_BYTES
        return _new(PackedFrame, (parts.codec, frame.segments, frame.nbytes, host_size))


class HostPayload(Payload):
    """A value that lies in RAM already, in memory of its own."""

    __slots__ = ()

    form = Form.HOST

    def to_host(self, trust: Keyring, *, verify: bool = True, copy: bool = True) -> Payload:
        """Return this payload."""
        del trust, verify, copy
        return self


class ObjectPayload(HostPayload):
    """An immutable object in RAM: every reader gets the object itself."""

    __slots__ = ("_object",)

    entry_type = SharedEntry

    def __init__(self, content: Any, size: int) -> None:
        self.size = size
        self._object = content

    @property
    def codec(self) -> str:
        """Return the name of the codec of the object."""
        return codecs.codec_for(self._object).name

    @property
    def sharing(self) -> Sharing:
        """Return that the object is shared."""
        return Sharing.SHARED

    @property
    def content(self) -> Any:
        """Return the object."""
        return self._object

    def open(self, trust: Keyring, *, verify: bool = True) -> Any:
        """Return the object."""
        del trust, verify
        return self._object

    def open_copy(self, trust: Keyring, *, verify: bool = True) -> Any:
        """Return the object, which is immutable."""
        del trust, verify
        return self._object

    def parts(self, trust: Keyring, *, verify: bool = True) -> codecs.Parts:
        """Return the object encoded."""
        del trust, verify
        return codecs.codec_for(self._object).encode(self._object)  # Nothing lies on a device.

    def region(self, index: Any, trust: Keyring, *, key: str) -> Any:
        """Return a part of bytes."""
        if self.codec != "bytes":
            return super().region(index, trust, key=key)
        return self._object[check_cut(index)]

    @property
    def content_bytes(self) -> int | None:
        """Return the length of bytes, or of a text in UTF-8."""
        codec, content = self.codec, self._object
        if codec == "str" and not content.isascii():
            return len(content.encode("utf-8", "surrogatepass"))
        return len(content) if codec in ("bytes", "str") else None

    def plain(self) -> PlainValue | None:
        """Return texts and bytes."""
        content = self._object
        kind = type(content)
        if (kind is not bytes and kind is not str) or len(content) > MAX_PACKED_BYTES:
            return None
        if kind is bytes and codecs.codec_for(content).name == "bytes":
            return "bytes", content, len(content)
        if kind is str and codecs.codec_for(content).name == "str":
            data = content.encode("utf-8", "surrogatepass")
            return "str", data, len(data)
        return None


class ArrayPayload(HostPayload):
    """A read-only NumPy array in RAM: every reader gets a view of it."""

    __slots__ = ("_array",)

    entry_type = ArrayEntry

    def __init__(self, content: Any, size: int) -> None:
        super().__init__(size)
        self._array = content

    @property
    def codec(self) -> str:
        """Return the name of the codec of the array."""
        return codecs.codec_for(self._array).name

    @property
    def sharing(self) -> Sharing:
        """Return that readers share the memory."""
        return Sharing.VIEW

    @property
    def content(self) -> Any:
        """Return the array."""
        return self._array

    def open(self, trust: Keyring, *, verify: bool = True) -> Any:
        """Return a view."""
        del trust, verify
        return self._array.view()

    def open_copy(self, trust: Keyring, *, verify: bool = True) -> Any:
        """Return a copy in the array's own memory layout."""
        del trust, verify
        return self._array.copy(order="K")

    def parts(self, trust: Keyring, *, verify: bool = True) -> codecs.Parts:
        """Return the array encoded; its buffers are those of the array."""
        del trust, verify
        return codecs.encode(self._array)

    def plain(self) -> PlainValue | None:
        """Return a small array of numbers in C order."""
        array = self._array
        if self.size > MAX_PACKED_BYTES + ENTRY_BYTES or not codecs.is_plain_array(array):
            return None
        return (ArrayCodec.name, array, array.nbytes) if array.flags.c_contiguous else None

    @property
    def content_bytes(self) -> int | None:
        """Return the bytes of the array."""
        return int(self._array.nbytes) if self.codec == ArrayCodec.name else None

    def owners(self) -> Iterable[Any]:
        """Return the object that owns the memory of the array."""
        return (codecs.memory_owner(self._array),) if isinstance(self._array, np.ndarray) else ()


class HeldPayload(HostPayload):
    """A mutable value in RAM, held privately: every reader gets a newly built one."""

    __slots__ = ("_held",)

    entry_type = PartsEntry

    def __init__(self, content: codecs.PrivateParts | codecs.PrivateCopy, size: int) -> None:
        super().__init__(size)
        self._held = content

    @property
    def codec(self) -> str:
        """Return the name of the codec of the value."""
        return self._held.codec

    @property
    def sharing(self) -> Sharing:
        """Return that each reader has a value of its own."""
        return Sharing.FRESH

    @property
    def content(self) -> Any:
        """Return what is held, which builds values."""
        return self._held

    def open(self, trust: Keyring, *, verify: bool = True) -> Any:
        """Return a new object."""
        del trust, verify
        return self._held.open()

    def open_shared(self, trust: Keyring, *, verify: bool = True) -> Any:
        """Return a new object over the held memory itself."""
        del trust, verify
        return self._held.open_shared()

    def region(self, index: Any, trust: Keyring, *, key: str) -> Any:
        """Return a part of a bytearray."""
        if self.codec != "bytearray":
            return super().region(index, trust, key=key)
        part = self._held.parts.buffers[0][check_cut(index)]
        return bytearray(part) if isinstance(part, memoryview) else part

    def parts(self, trust: Keyring, *, verify: bool = True) -> codecs.Parts:
        """Return the held parts, or those of a new object."""
        del trust, verify
        return self._held.parts

    def description(self) -> codecs.Parts | None:
        """Return the parts if they are held."""
        return self._held.description()

    def owners(self) -> Iterable[Any]:
        """Return the objects that own the memory which readers may share."""
        return self._held.owners()


class PackedPayload(HostPayload):
    """A list or dict of plain values in RAM, packed: every reader gets a newly built one.

    Its parts are made when it leaves RAM, which it does once or never.
    """

    __slots__ = ("_packed",)

    entry_type = PackedEntry

    def __init__(self, content: bytes, size: int) -> None:
        super().__init__(size)
        self._packed = content

    @property
    def codec(self) -> str:
        """Return the name of the codec of its frame."""
        return codecs.TREE

    @property
    def content(self) -> Any:
        """Return the packed bytes."""
        return self._packed

    def open(self, trust: Keyring, *, verify: bool = True) -> Any:
        """Return a new object."""
        del trust, verify
        return unpack(self._packed)

    def open_copy(self, trust: Keyring, *, verify: bool = True) -> Any:
        """Return a new object, which shares nothing with others."""
        del trust, verify
        return unpack(self._packed)

    def parts(self, trust: Keyring, *, verify: bool = True) -> codecs.Parts:
        """Return a new object encoded."""
        del trust, verify
        return codecs.encode(unpack(self._packed))


class PartsPayload(Payload):
    """A value of which buffers lie on a device, as the caller gave it or as a hot tier wants it."""

    __slots__ = ("_parts", "_sharing")

    form = Form.DEVICE

    def __init__(self, parts: codecs.Parts, size: int, sharing: Sharing) -> None:
        super().__init__(size)
        self._parts = parts
        self._sharing = sharing

    @property
    def codec(self) -> str:
        """Return the name of the codec of the value."""
        return self._parts.codec

    @property
    def sharing(self) -> Sharing:
        """Return what readers of the value may share."""
        return self._sharing

    def open(self, trust: Keyring, *, verify: bool = True) -> Any:
        """Return the value, in the host's memory."""
        return codecs.decode(self.parts(trust, verify=verify))

    def parts(self, trust: Keyring, *, verify: bool = True) -> codecs.Parts:
        """Return the parts, fetched from the device."""
        del trust, verify
        return codecs.fetch(self._parts)

    def description(self) -> codecs.Parts | None:
        """Return the parts as they lie."""
        return self._parts

    def unmoved_parts(self, trust: Keyring) -> codecs.Parts:
        """Return the parts as they lie."""
        del trust
        return self._parts


class FramePayload(Payload):
    """A frame that was read from a durable tier or from another node."""

    __slots__ = ("frame",)

    form = Form.ENCODED

    def __init__(self, frame: OpenFrame | PartialFrame) -> None:
        super().__init__(frame.nbytes)
        self.frame = frame

    @property
    def codec(self) -> str:
        """Return the name of the codec that the frame names."""
        return self.frame.codec

    @property
    def host_size(self) -> int:
        """Return the bytes that the value would take in RAM."""
        return self.frame.raw_nbytes + ENTRY_BYTES

    def open(self, trust: Keyring, *, verify: bool = True) -> Any:
        """Return the value, over the memory of the frame where readers may share it."""
        return codecs.decode(self.parts(trust, verify=verify))

    def parts(self, trust: Keyring, *, verify: bool = True) -> codecs.Parts:
        """Return the parts; raw buffers lie where the frame does."""
        return self.whole.parts(verify=verify, verifier=trust)

    def region(self, index: Any, trust: Keyring, *, key: str) -> Any:
        """Return `value[index]`, read from the chunks that it touches."""
        del trust, key
        return self.frame.region(index)

    def to_frame(
        self,
        *,
        key: str,
        version: int,
        compression: str,
        trust: Keyring,
        history: CompressionHistory,
        recompress: bool = False,
    ) -> PackedFrame:
        """Return the bytes of the frame, or fewer with `recompress` where that saves enough.

        For another key or version it is bound to these.
        """
        if (key, version) != (self.frame.key, self.frame.version):
            frame: Frame | None = rebind(
                self.whole, key=key, version=version, compression=compression, trust=trust,
                history=history,
            )  # fmt: skip
        else:
            frame = recompress_frame(self.whole, compression) if recompress else None
        if frame is None:
            return PackedFrame(self.codec, self.whole.segments, self.size, self.host_size)
        host_size = frame.raw_nbytes + ENTRY_BYTES
        return PackedFrame(self.codec, frame.segments, frame.nbytes, host_size)

    @property
    def whole(self) -> OpenFrame:
        """Return the frame, all of whose bytes are here."""
        assert isinstance(self.frame, OpenFrame), "only regions are read of a distant frame"
        return self.frame


_BY_SHARING: dict[Sharing, type[ObjectPayload | ArrayPayload | HeldPayload]] = {
    Sharing.SHARED: ObjectPayload,
    Sharing.VIEW: ArrayPayload,
    Sharing.FRESH: HeldPayload,
}
_BY_ENTRY: dict[type[Entry], type[ObjectPayload | ArrayPayload | HeldPayload | PackedPayload]] = {
    kind.entry_type: kind for kind in (*_BY_SHARING.values(), PackedPayload)
}


def host_payload(parts: codecs.Parts, *, copy: bool = True) -> Payload:
    """Return parts in RAM, in memory of their own, or with `copy=False` in the one they have."""
    plain = codecs.own_plain_parts(parts, copy=copy)
    return (
        _payload(*codecs.own_parts(parts, copy=copy)) if plain is None else _plain_payload(*plain)
    )


def _plain_payload(kind: type[Entry], content: Any, nbytes: int) -> Payload:
    """Return the payload of what `codecs.own_plain` returned."""
    return _BY_ENTRY[kind](content, nbytes + ENTRY_BYTES)


def _payload(sharing: Sharing, content: Any, nbytes: int) -> Payload:
    """Return the payload of what `codecs.own_value`, `borrow_value` or `own_parts` returned."""
    if isinstance(content, codecs.Parts):
        return PartsPayload(content, nbytes + ENTRY_BYTES, sharing)
    return _BY_SHARING[sharing](content, nbytes + ENTRY_BYTES)
