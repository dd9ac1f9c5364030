"""The interface of a codec, which encodes a value as a description and buffers, and decodes it.

A codec neither copies nor compresses: `encode` lists the memory of the value itself. `freeze` makes
private copies of these buffers for RAM, and `frames.writer.pack` makes bytes of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import msgspec

from memories.errors import UnsupportedTypeError


class Sharing(Enum):
    """What readers of a value may share without a copy (the table in `docs/values.md`)."""

    SHARED = "shared"  # Immutable: every reader gets the same object.
    VIEW = "view"  # A NumPy array: every reader gets a read-only view.
    FRESH = "fresh"  # Mutable: every reader gets a newly decoded object.


class DeviceBuffer(NamedTuple):
    """A buffer in the memory of an accelerator."""

    memory: Any  # A contiguous array of torch, CuPy or JAX over it.
    nbytes: int
    device: str  # "cuda:0", for example.
    address: int  # Of its first byte; identifies a buffer within the device.
    fetch: Callable[[], memoryview]  # Copies it to new memory of the host.


NOTHING_FAR: Mapping[int, DeviceBuffer] = MappingProxyType({})


class Parts(NamedTuple):
    """An encoded value.

    `meta` consists of what msgpack can store (None, bool, int of 64 bits, float, str, bytes, list,
    dict with str keys). Each buffer is a C-contiguous memoryview of format "B". It may share its
    memory with the value, unless its index is in `owned`: nothing else refers to such a buffer, so
    it needs no copy. A buffer on a device is in `far`, by index, and `buffers` has an empty one in
    its place. The decoded value may use the buffers whose indices are in `given` as its own
    writable memory.
    """

    codec: str
    meta: Any
    buffers: tuple[memoryview, ...] = ()
    owned: frozenset[int] = frozenset()
    far: Mapping[int, DeviceBuffer] = NOTHING_FAR
    given: frozenset[int] = frozenset()

    @property
    def nbytes(self) -> int:
        """Return the bytes of all buffers, on the host and on devices."""
        nbytes = 0
        for buffer in self.buffers:
            nbytes += buffer.nbytes
        for there in self.far.values():
            nbytes += there.nbytes
        return nbytes


def pack_meta(meta: Any) -> bytes:
    """Return the description of a value as the bytes that its frame will have.

    Raises:
        UnsupportedTypeError: msgpack cannot store it, or it is nested too deeply.
    """
    try:
        return msgspec.msgpack.encode(meta)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UnsupportedTypeError(
            f"the description that a codec made of a value cannot be stored: {error}"
        ) from error


# A codec whose name is PICKLE, or ends in SIGNED, carries code: its frames must be signed.
PICKLE = "pickle"
SIGNED = "+pickle"


def carries_code(codec: str) -> bool:
    """Return whether decoding what this codec wrote can run code."""
    return codec == PICKLE or codec.endswith(SIGNED)


class Codec(ABC):
    """Turns values of some types into parts and back.

    An implementation MUST be stateless and safe to call from many threads. `decode(encode(x))`
    MUST equal `x` bit for bit and type for type. `name` is written into every frame: it MUST
    never change its meaning.
    """

    name: ClassVar[str]
    sharing: ClassVar[Sharing] = Sharing.FRESH
    # Its values are writable even over read-only buffers, so they need memory of their own. Values
    # of one tree that share a buffer get one copy of it, and still share it.
    private: ClassVar[bool] = False

    @abstractmethod
    def encode(self, value: Any) -> Parts:
        """Return the parts of `value` without copying its memory, or the memory of a device.

        Raises:
            UnsupportedTypeError: something in `value` cannot be encoded.
        """

    @abstractmethod
    def decode(self, parts: Parts, *, writable: bool = False) -> Any:
        """Return the value of `parts`.

        The buffers are read-only unless `writable`, in which case they belong to the reader. The
        result SHOULD share their memory rather than copy it, MUST never allow writing through a
        read-only one, and MUST NOT run code that `parts` names. Only a codec that returns a `home`
        gets buffers in `far`; it MUST build the value over that memory, which belongs to the
        reader.

        Raises:
            CorruptDataError: `parts` were not made by this codec.
        """

    def home(self, meta: Any) -> str | None:
        """Return the device of a value with this description; None for host memory."""
        del meta
        return None

    def rehome(self, meta: Any, device: str) -> Any:
        """Return the description of the same value on `device`, or `meta` if it cannot be there."""
        del device
        return meta

    def prelude(self, parts: Parts) -> bytes:
        """Return the bytes before the buffers of a raw frame, a multiple of 64.

        They make the body a file of a known format, such as `.npy`.
        """
        del parts
        return b""

    def share(self, parts: Parts) -> Callable[[], Any]:
        """Return a function that returns a new value of `parts`, which are private, at each call.

        A codec whose values are cheaper to clone than to decode can decode once and return clones.
        """
        return lambda: self.decode(parts)
