"""Reads the values of small frames, every byte of which is verified in one pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from memories import codecs
from memories.codecs.registry import damaged, loaded
from memories.engine.payload import Payload, host_payload
from memories.errors import MemoriesError
from memories.foundation.host_limits import ENTRY_BYTES
from memories.frames.fast_path import read_small
from memories.frames.signing import Keyring
from memories.frames.single_buffer import open_single
from memories.model.entry import ArrayEntry, Entry
from memories.model.tiers import Form

_new = tuple.__new__  # What a named tuple does, without its argument parsing.


class OwnedValue(NamedTuple):
    """A value as an entry in host RAM holds it."""

    kind: type[Entry]
    content: Any
    size: int


def open_small(frame: memoryview, key: str, trust: Keyring) -> Any:
    """Return the value of a small frame; its memory does not keep that of `frame` alive.

    If the frame is compressed or signed, the general reader takes its bytes.

    Raises:
        CorruptDataError: the frame is damaged, or the frame of another key.
        UntrustedDataError: it would run code, and no trusted key has signed it.
    """
    whole = frame.obj
    if type(whole) is bytes and len(whole) == frame.nbytes:
        single = open_single(whole, key)
        if single is not None:
            return single
    else:
        whole = bytes(frame)
    parts = read_small(frame, key)
    if parts is None:
        return Payload.of_frame(memoryview(whole), key=key).open(trust)
    codec = loaded(parts.codec) or codecs.codec_named(parts.codec)
    try:
        return codec.decode(parts)
    except (MemoriesError, MemoryError):
        raise
    except Exception as error:  # Damaged parts can fail in any way.
        raise damaged(parts.codec, error) from error


def load_small(frame: bytes, key: str) -> OwnedValue | None:
    """Return the value of a small frame for RAM.

    None where the general reader must look: the frame is compressed, signed or damaged.

    Raises:
        CorruptDataError: the frame is damaged.
    """
    value = open_single(frame, key)
    if type(value) is np.ndarray:  # Read-only, in memory of its own.
        return _new(OwnedValue, (ArrayEntry, value, value.nbytes + ENTRY_BYTES))
    plain = None if value is None else codecs.own_plain(value)
    if plain is not None:
        return _new(OwnedValue, (plain[0], plain[1], plain[2] + ENTRY_BYTES))
    parts = read_small(memoryview(frame), key)
    if parts is None:
        return None
    payload = host_payload(parts)
    if payload.form is not Form.HOST:
        return None
    return OwnedValue(payload.entry_type, payload.content, payload.size)
