"""Encode values as parts (a description and buffers), and decode parts to values.

The same parts are kept in RAM and written into the frames on a disk, in a bucket and in a snapshot.
Types are restored exactly, and no code runs unless a trusted key has signed it. Keys, tiers and
files are unknown here.
"""

from __future__ import annotations

from memories.codecs.arrays import freeze_array, memory_owner
from memories.codecs.base import Codec, Parts, Sharing, carries_code
from memories.codecs.buffers import fetch, freeze, thaw
from memories.codecs.device_placement import home_devices, move_home
from memories.codecs.memory_size import size_of
from memories.codecs.nested import TREE
from memories.codecs.ownership import (
    ALWAYS_SHARED,
    PrivateParts,
    borrow_value,
    own_parts,
    own_value,
    sharing,
)
from memories.codecs.plain import is_plain_array, own_plain, own_plain_parts, pack_container
from memories.codecs.private_copy import PrivateCopy
from memories.codecs.registration import register_codec
from memories.codecs.registry import codec_for, codec_named, decode, encode

__all__ = [
    "ALWAYS_SHARED",
    "TREE",
    "Codec",
    "Parts",
    "PrivateCopy",
    "PrivateParts",
    "Sharing",
    "borrow_value",
    "carries_code",
    "codec_for",
    "codec_named",
    "decode",
    "encode",
    "fetch",
    "freeze",
    "freeze_array",
    "home_devices",
    "is_plain_array",
    "memory_owner",
    "move_home",
    "own_parts",
    "own_plain",
    "own_plain_parts",
    "own_value",
    "pack_container",
    "register_codec",
    "sharing",
    "size_of",
    "thaw",
]
