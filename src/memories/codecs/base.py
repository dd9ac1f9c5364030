"""What a codec is: a value taken apart into a description and buffers, and put together again.

A codec never copies and never compresses. `encode` lists the value's own memory, `freeze` makes
that list private, `frame.pack` turns it into bytes. What stays in RAM and what goes to a disk are
the same parts.
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
    """What a reader may be given without a copy (the table in `docs/values.md`)."""

    SHARED = "shared"  # Immutable: every reader gets the same object.
    VIEW = "view"  # A NumPy array: every reader gets a read-only view.
    FRESH = "fresh"  # Mutable: every reader gets a newly decoded object.


class DeviceBuffer(NamedTuple):
    """Memory of an accelerator in the place of a buffer; nothing has been copied from it."""

    memory: Any  # A contiguous array of torch, CuPy or JAX that lies over it.
    nbytes: int
    device: str  # Where it lies: "cuda:0".
    address: int  # Tells stretches of memory of one device apart.
    fetch: Callable[[], memoryview]  # Copies it to memory of the host that nobody else holds.


NOTHING_FAR: Mapping[int, DeviceBuffer] = MappingProxyType({})


class Parts(NamedTuple):
    """A value taken apart.

    `meta` holds only what msgpack can (None, bool, int in 64 bits, float, str, bytes, list, dict
    with str keys). Each buffer is a C-contiguous memoryview of format "B", and may alias the value,
    except those that `owned` names by index: nobody else holds them, so they need no copy.
    What lies on a device is in `far`, by index, and the buffer in its place is empty. The memory of
    those that `given` names may become that of the value that is put together, to be written to.
    """

    codec: str
    meta: Any
    buffers: tuple[memoryview, ...] = ()
    owned: frozenset[int] = frozenset()
    far: Mapping[int, DeviceBuffer] = NOTHING_FAR
    given: frozenset[int] = frozenset()

    @property
    def nbytes(self) -> int:
        """Return the bytes in all buffers, wherever they lie."""
        host = sum(buffer.nbytes for buffer in self.buffers)
        return host + sum(buffer.nbytes for buffer in self.far.values())


def pack_meta(meta: Any) -> bytes:
    """Return the description of a value as the bytes that its frame will have.

    Raises:
        UnsupportedTypeError: it is no data, or nested too deeply.
    """
    try:
        return msgspec.msgpack.encode(meta)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UnsupportedTypeError(f"a codec described a value by what is no data: {error}") from (
            error
        )


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
    # Its values can be written to whatever their buffers say, so they need memory of their own;
    # values of one tree that share a buffer get one copy of it, and go on sharing.
    private: ClassVar[bool] = False

    @abstractmethod
    def encode(self, value: Any) -> Parts:
        """Take `value` apart without copying its memory, the memory of a device included.

        Raises:
            UnsupportedTypeError: something in `value` cannot be encoded.
        """

    @abstractmethod
    def decode(self, parts: Parts, *, writable: bool = False) -> Any:
        """Put a value together again.

        The buffers are read-only unless `writable`, in which case they are the reader's own. The
        result SHOULD alias them rather than copy, MUST never allow writing through a read-only
        one, and MUST NOT run code that `parts` names. Only a codec that names a `home` is given
        buffers in `far`; it MUST build the value over that memory, which is the reader's.

        Raises:
            CorruptDataError: `parts` were never made by this codec.
        """

    def home(self, meta: Any) -> str | None:
        """Return the device that a value so described lives on; None for the host's memory."""
        del meta
        return None

    def rehome(self, meta: Any, device: str) -> Any:
        """Return the description of the same value living on `device`, if it can."""
        del device
        return meta

    def prelude(self, parts: Parts) -> bytes:
        """Return bytes that a raw frame puts before the buffers, a multiple of 64 of them.

        They make the body a file of a known kind for readers that know nothing of frames.
        """
        del parts
        return b""

    def share(self, parts: Parts) -> Callable[[], Any]:
        """Return what gives each reader his own value out of `parts`, which are private.

        A codec whose values are cheaper to clone than to decode keeps one and clones it.
        """
        return lambda: self.decode(parts)
