"""`register_codec`, which adds a codec for a type of the program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memories.codecs.base import SIGNED, Codec
from memories.codecs.nested import StructureCodec
from memories.codecs.plain import leave_to_codec
from memories.codecs.registry import FAMILIES, add, load_builtin
from memories.errors import InvalidOptionError


def register_codec(
    kind: type,
    codec: Codec | None = None,
    *,
    name: str | None = None,
    encode: Callable[[Any], Any] | None = None,
    decode: Callable[[Any], Any] | None = None,
) -> None:
    """Register a codec for a type of your own.

    Either give `name`, `encode` and `decode`: `encode(value)` returns anything that can be stored,
    for example a dict of arrays, and `decode` gets the same and returns the value. Or give a whole
    `Codec`. The name is written into every frame, so it can never change: use
    `"yourpackage.thing"`. Subclasses are not included.

    Raises:
        InvalidOptionError: the name is not allowed, or arguments are missing.
    """
    if codec is None:
        if name is None or encode is None or decode is None:
            raise InvalidOptionError(
                f"register_codec({kind.__name__}) needs a codec, or all of name, encode and decode"
            )
        codec = StructureCodec(name, encode, decode)
    _check_name(codec.name)
    load_builtin()
    add(codec, kind)
    leave_to_codec(kind)


def _check_name(name: str) -> None:
    if not name or not name.isascii() or len(name) > 100 or name.endswith(SIGNED):
        raise InvalidOptionError(f"{name!r} cannot name a codec: use 'yourpackage.thing'")
    if "." not in name or name.partition(".")[0] in FAMILIES:
        raise InvalidOptionError(
            f"the codec name {name!r} belongs to memories: use 'yourpackage.thing'"
        )
