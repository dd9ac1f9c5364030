"""Pack and read the frames of `bytes` and `str`: one small buffer without a description.

`open_single` also reads what `single_array` packs.

Between the version and the checksum of the buffer, such a frame has the same bytes as all others of
its codec and size: its *form*. `pack_single` makes what `writer.pack` would make, byte for byte.
`open_single` accepts only what `OpenFrame` would accept; both return None for all other frames.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

import msgspec
from xxhash import xxh3_64_intdigest

from memories.frames import head
from memories.frames.compression import block_decompressor, decompress_small, plain_front
from memories.frames.single_array import FIRST_BYTE, open_array
from memories.frames.small_front import MARK, PADDING, PREFIX, SECOND, SHORT_KEY, check_front

CODECS: Final = frozenset(("bytes", "str"))
MOST_FORMS: Final = 4096  # One for each codec and size, and each size to which it was compressed.
MAX_SINGLE: Final = 256 << 10
_FIRST: Final = b"\x85\xa3key"
_RAW: Final = 0
_BLOSC: Final = 1
_DAMAGED: Final[tuple[type[Exception], ...]] = (RuntimeError, ValueError)  # Of a block of LZ4.
# Behind the checksum of a raw buffer there are no lengths, behind that of another one is one.
_NO_LENGTH: Final = b"\xc4\x00"
_ONE_LENGTH: Final = b"\xc4\x04"
# Names of this module, which compiled code finds without a look-up.
_encode: Final[Callable[[Any], bytes]] = msgspec.msgpack.Encoder().encode
_pack_front: Final[Callable[..., bytes]] = struct.Struct("<12sIQII").pack
_digest: Final[Callable[[bytes], int]] = xxh3_64_intdigest
_decompress: Final[Callable[[bytes, int], bytes | None]] = decompress_small
_decode_fields = msgspec.msgpack.Decoder(head.Fields).decode
_decode_content = msgspec.msgpack.Decoder(head.Content).decode


class FormFields:
    """What the form of a frame says."""

    __slots__ = ("block", "code", "codec", "front", "nbytes", "raw", "stored")

    def __init__(self, codec: str, stored: int, raw: int, code: int) -> None:
        self.codec = codec
        self.stored = stored
        self.raw = raw
        self.code = code  # The compressor.
        # Of most that are compressed: how the chunk begins, what decompresses its block, and the
        # size that this wants before the block.
        self.front: bytes | None = None if code == _RAW else plain_front(raw, stored)
        self.block: Any = None if self.front is None else block_decompressor()
        self.nbytes = raw.to_bytes(4, "little")


_forms: Final[dict[bytes, FormFields]] = {}
_forms_of: Final[dict[tuple[str, int, int], bytes]] = {}


def pack_single(
    codec: str, key: str, version: int, data: bytes, packed: bytes | None = None
) -> bytes | None:
    """Return the frame of a value whose only buffer is `data`; None where `pack` must make it.

    `packed` is the same, compressed by Blosc.

    Raises:
        InvalidKeyError: the key is not valid.
    """
    raw = len(data)
    if not 0 < len(key) <= SHORT_KEY or not key.isascii():
        head.check_key(key)
    body = data if packed is None else packed
    stored = len(body)
    if not 0 < stored <= MAX_SINGLE:
        return None
    form = _forms_of.get((codec, stored, -1 if packed is None else raw))
    if form is None:
        form = _new_form(codec, stored, raw, _RAW if packed is None else _BLOSC)
    total = xxh3_64_intdigest(body).to_bytes(8, "little")
    length = _NO_LENGTH if packed is None else _ONE_LENGTH + stored.to_bytes(4, "little")
    fields = b"".join((_FIRST, _encode(key), SECOND, _encode(version), form, total, length))
    size = len(fields)
    start = (PREFIX + size + 63) & -64
    rest = PADDING[-stored & 63]
    front = _pack_front(MARK, start, stored + len(rest), size, 0)
    back = fields + PADDING[start - PREFIX - size]
    head_total = xxh3_64_intdigest(front + back).to_bytes(8, "little")
    return b"".join((front, head_total, back, body, rest))


def open_single(frame: bytes, key: str) -> Any:
    """Return the value of such a frame of `key`, every byte of it verified; None if it is another.

    Arrays are read-only.
    """
    nbytes = len(frame)
    if nbytes <= PREFIX:
        return None
    if frame[PREFIX] == FIRST_BYTE:
        return open_array(frame, key)
    if nbytes > MAX_SINGLE:
        return None
    at, end, start, body = check_front(frame, key, _FIRST)
    if not at:
        return None
    form = _forms.get(frame[at : end - 10])
    if form is None:
        form = _forms.get(frame[at : end - 14])
        if form is None:
            form = _learn(frame[PREFIX:end], at - PREFIX)
            if form is None:
                return None
    stored = form.stored
    data = frame[start : start + stored]
    rest = body - stored
    if rest and (rest != -stored & 63 or frame[start + stored :] != PADDING[rest]):
        return None
    value: bytes | None
    if form.code == _RAW:
        if frame[end - 10 : end] != _digest(data).to_bytes(8, "little") + _NO_LENGTH:
            return None
        value = data
    else:
        sums = _digest(data).to_bytes(8, "little") + _ONE_LENGTH + stored.to_bytes(4, "little")
        if frame[end - 14 : end] != sums:
            return None
        front = form.front
        if front is not None and data.startswith(front):
            try:
                value = form.block(form.nbytes + data[len(front) :])
            except _DAMAGED:
                return None
            if value is None or len(value) != form.raw:
                return None
        else:
            value = _decompress(data, form.raw)
    if value is None or form.codec == "bytes":
        return value
    try:
        return str(value, "utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None


def _new_form(codec: str, stored: int, raw: int, code: int) -> bytes:
    """Return the form of such frames, and remember it."""
    length = b"" if code == _RAW else stored.to_bytes(4, "little")
    content = _encode((None, ((0, stored, raw, code, bytes(8), length),)))
    fields = _encode({"key": "", "version": 0, "codec": codec, "raw": raw, "content": content})
    form = fields[len(_FIRST) + 1 + len(SECOND) + 1 : -10 - len(length)]
    if len(_forms) >= MOST_FORMS:
        _forms.clear()
        _forms_of.clear()
    _forms[form] = FormFields(codec, stored, raw, code)
    _forms_of[codec, stored, -1 if code == _RAW else raw] = form
    return form


def _learn(fields: bytes, at: int) -> FormFields | None:
    """Return the form of a frame with these packed fields; None if it is another kind of frame.

    It begins at `at`, if this is such a frame.
    """
    try:
        found = _decode_fields(fields)
        content = _decode_content(found.content)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    if found.codec not in CODECS or len(content.buffers) != 1:
        return None
    _, stored, raw, code, _, _ = msgspec.structs.astuple(content.buffers[0])
    if code not in (_RAW, _BLOSC) or (code == _RAW and stored != raw):
        return None
    if not (0 < stored <= MAX_SINGLE and 0 < raw <= MAX_SINGLE):
        return None
    form = _new_form(found.codec, stored, raw, code)
    # Only what `pack_single` would have written counts.
    return _forms.get(form) if form in (fields[at:-10], fields[at:-14]) else None
