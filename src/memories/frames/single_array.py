"""Pack and read the frames of small arrays of numbers: one raw buffer behind an `.npy` header.

Between the version and the checksum of the buffer, such a frame has the same bytes as all others of
its dtype and shape, and so it has behind that checksum: its *form*. `pack_array` makes what
`writer.pack` would make, byte for byte. `open_array` accepts only what `OpenFrame` would accept;
both return None for all other frames.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

import msgspec
import numpy as np
from xxhash import xxh3_64_intdigest

from memories.codecs.arrays import Array, ArrayCodec, is_ordinary, npy_header, read_meta
from memories.codecs.base import Parts, pack_meta
from memories.codecs.dtypes import build, describe
from memories.errors import CorruptDataError
from memories.frames import head
from memories.frames.small_front import MARK, PADDING, PREFIX, SECOND, SHORT_KEY, check_front

FIRST_BYTE: Final = 0x86  # Of the fields: a map of six. A frame without a header has five.
MOST_FORMS: Final = 1024  # One for each dtype and shape.
MAX_ARRAY: Final[int] = head.CHUNK_NBYTES  # A larger one has a checksum for each chunk.
COPIED: Final = 16 << 10  # Up to this size an array gets memory of its own, without the head.
_NPY: Final = 128  # Bytes of the header, for all but long shapes.
_FIRST: Final = bytes([FIRST_BYTE]) + b"\xa3key"
# Names of this module, which compiled code finds without a look-up.
_encode: Final[Callable[[Any], bytes]] = msgspec.msgpack.Encoder().encode
_pack_front: Final[Callable[..., bytes]] = struct.Struct("<12sIQII").pack
_digest: Final[Callable[[Any], int]] = xxh3_64_intdigest
_from_memory: Final[Callable[..., Any]] = np.frombuffer
_BYTE: Final[Any] = np.uint8
_decode_fields = msgspec.msgpack.Decoder(head.Fields).decode
_decode_content = msgspec.msgpack.Decoder(head.Content).decode
_decode_meta = msgspec.msgpack.Decoder().decode
# Behind the checksum of the buffer: no lengths, then the piece of the header.
_TAIL: Final = len(b"\xc4\x00" + _encode("prelude") + _encode((0, _NPY, _NPY, 0, bytes(8), b"")))
_SUM_AND_TAIL: Final = 8 + _TAIL


class ArrayForm:
    """What all frames of one dtype and shape have in common."""

    __slots__ = ("dtype", "fields", "header", "nbytes", "shape", "tail")

    def __init__(
        self,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        nbytes: int,
        fields: bytes,
        tail: bytes,
        header: bytes,
    ) -> None:
        self.dtype = dtype
        self.shape = shape
        self.nbytes = nbytes
        self.fields = fields  # Behind the version, up to the checksum of the buffer.
        self.tail = tail  # The fields behind that checksum.
        self.header = header


_forms: Final[dict[bytes, ArrayForm]] = {}
_forms_of: Final[dict[tuple[np.dtype[Any], tuple[int, ...]], ArrayForm]] = {}


def pack_array(key: str, version: int, array: Any) -> bytes | None:
    """Return the frame of a C-contiguous array of an ordinary dtype; None where `pack` must.

    Raises:
        InvalidKeyError: the key is not valid.
    """
    if not 0 < len(key) <= SHORT_KEY or not key.isascii():
        head.check_key(key)
    kind = array.dtype, array.shape
    form = _forms_of.get(kind)
    if form is None:
        form = _form_of(*kind)
        if form is None:
            return None
    nbytes = form.nbytes
    total = _digest(array).to_bytes(8, "little")
    fields = b"".join(
        (_FIRST, _encode(key), SECOND, _encode(version), form.fields, total, form.tail)
    )
    size = len(fields)
    start = (PREFIX + size + 63) & -64
    rest = PADDING[-nbytes & 63]
    front = _pack_front(MARK, start, _NPY + nbytes + len(rest), size, 0)
    back = fields + PADDING[start - PREFIX - size]
    head_total = _digest(front + back).to_bytes(8, "little")
    return b"".join((front, head_total, back, form.header, array, rest))


def open_array(frame: bytes, key: str) -> Array | None:
    """Return the array of such a frame of `key`, read-only, every byte of it verified."""
    nbytes = len(frame)
    if not PREFIX < nbytes <= MAX_ARRAY:
        return None
    at, end, start, body = check_front(frame, key, _FIRST)
    if not at:
        return None
    sums = end - _SUM_AND_TAIL
    form = _forms.get(frame[at:sums])
    if form is None:
        form = _learn(frame[PREFIX:end], at - PREFIX)
        if form is None:
            return None
    raw = form.nbytes
    first = start + _NPY
    rest = body - _NPY - raw
    if (
        not frame.endswith(form.tail, 0, end)
        or frame[start:first] != form.header
        or rest != -raw & 63
        or frame[first + raw :] != PADDING[rest]
    ):
        return None
    if raw <= COPIED:
        memory: Any = _from_memory(frame[first : first + raw], _BYTE)
    else:
        memory = _from_memory(frame, _BYTE, raw, first)
    if _digest(memory).to_bytes(8, "little") != frame[sums : sums + 8]:
        return None
    # The memory belongs to an array that no reader sees: setting the shape of a view of the result
    # in place leaves the result as it is.
    flat: Array = memory.view(form.dtype)
    return flat if len(form.shape) == 1 else flat.reshape(form.shape)


def _form_of(dtype: np.dtype[Any], shape: tuple[int, ...]) -> ArrayForm | None:
    """Return the form of such arrays, and remember it; None where there is none."""
    header = npy_header(dtype, shape, "C")
    nbytes = dtype.itemsize
    for extent in shape:
        nbytes *= extent
    described = describe(dtype)
    meta = pack_meta({"dtype": described, "shape": list(shape), "order": "C"})
    content = _encode((msgspec.Raw(meta), ((_NPY, nbytes, nbytes, 0, bytes(8), b""),)))
    if len(header) != _NPY or not nbytes or len(content) > head.MAX_INLINE:
        return None
    total = xxh3_64_intdigest(header).to_bytes(8, "little")
    fields = {"key": "", "version": 0, "codec": ArrayCodec.name, "raw": nbytes, "content": content}
    packed = _encode({**fields, "prelude": (0, _NPY, _NPY, 0, total, b"")})
    middle = packed[len(_FIRST) + 1 + len(SECOND) + 1 : -_SUM_AND_TAIL]
    form = ArrayForm(build(described), shape, nbytes, middle, packed[-_TAIL:], header)
    if len(_forms) >= MOST_FORMS:
        _forms.clear()
        _forms_of.clear()
    _forms[middle] = form
    _forms_of[dtype, shape] = form
    return form


def _learn(fields: bytes, at: int) -> ArrayForm | None:
    """Return the form of a frame with these packed fields; None if it is another kind of frame.

    It begins at `at`, if this is such a frame.
    """
    try:
        found = _decode_fields(fields)
        content = _decode_content(found.content)
        meta = _decode_meta(content.meta)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    if found.codec != ArrayCodec.name or len(content.buffers) != 1:
        return None
    try:
        dtype, shape, _ = read_meta(Parts(found.codec, meta, ()))
    except CorruptDataError:
        return None
    values = np.empty(0, dtype)
    if not is_ordinary(values) or not 0 < found.raw <= MAX_ARRAY:
        return None
    form = _form_of(dtype, shape)
    # Only what `pack_array` would have written counts.
    return form if form is not None and form.fields == fields[at:-_SUM_AND_TAIL] else None
