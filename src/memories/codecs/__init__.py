"""Values to parts, parts to frames, and back: exact, typed, and never code from strangers.

Nothing here knows of keys in a store, tiers or files. The one idea: what lies in RAM, on a disk, in
a bucket and in a snapshot are the same parts.
"""

from __future__ import annotations

from memories.codecs.arrays import freeze_array
from memories.codecs.base import Codec, Parts, Sharing, carries_code
from memories.codecs.buffers import fetch, freeze, thaw
from memories.codecs.content_hash import content_hash
from memories.codecs.device_placement import homes, rehomed
from memories.codecs.memory_size import size_of
from memories.codecs.ownership import Held, borrow, hold, keep, sharing
from memories.codecs.registration import register_codec
from memories.codecs.registry import decode, encode, find, get

__all__ = [
    "Codec",
    "Held",
    "Parts",
    "Sharing",
    "borrow",
    "carries_code",
    "content_hash",
    "decode",
    "encode",
    "fetch",
    "find",
    "freeze",
    "freeze_array",
    "get",
    "hold",
    "homes",
    "keep",
    "register_codec",
    "rehomed",
    "sharing",
    "size_of",
    "thaw",
]
