"""Bind the frame of a value to another key, without decoding the value.

A frame names its key and its version. Of nearly all frames only the head is made anew, and the body
is copied as it is. A value that carries code is signed together with both: it is verified, and
signed again, so that no signature ever covers what was not trusted before.
"""

from __future__ import annotations

from msgspec.structs import replace

from memories.codecs.base import carries_code
from memories.frames.compression_history import CompressionHistory
from memories.frames.head import pack_head
from memories.frames.reader import OpenFrame
from memories.frames.signing import Keyring
from memories.frames.writer import Frame, pack


def rebind(
    frame: OpenFrame,
    *,
    key: str,
    version: int,
    compression: str,
    trust: Keyring,
    history: CompressionHistory,
) -> Frame:
    """Return the same value as a frame of `key` and `version`, after every byte was verified.

    Raises:
        CorruptDataError: the frame is damaged.
        UntrustedDataError: the value would run code, and no trusted key has signed it.
        InvalidKeyError: the key is not valid.
    """
    if carries_code(frame.codec):
        return pack(
            frame.parts(verifier=trust), key=key, version=version, compression=compression,
            signer=trust, history=history,
        )  # fmt: skip
    frame.verify()
    _, body = frame.segments
    head = memoryview(pack_head(replace(frame.fields, key=key, version=version), body.nbytes))
    segments = [head, body] if body.nbytes else [head]
    return Frame(head, segments, head.nbytes + body.nbytes, frame.raw_nbytes)
