"""The name of a ZIP member for a key: readable, safe to unpack anywhere, and unique.

Names are for other tools only; the manifest says which member belongs to which key. A plain key
stays as it is, so that `numpy.load(path)["matrix_1"]` works.
"""

from __future__ import annotations

import hashlib
import re

RESERVED = "__memories__/"
MANIFEST = RESERVED + "manifest"

LONGEST_BYTES = 200
_KEPT_BYTES = 100
# Our own folder, the colon of a drive letter, and the suffixes that tell members apart.
_EDGES = re.compile(r"^_(?=_memories__/)|(?<=^[A-Za-z]):|\.(?=(?:npy|frame)$)")


def packed_name(number: int) -> str:
    """Return the name of the `number`-th member of small values."""
    return f"{RESERVED}packed-{number:08}"


def member_name(key: str, *, npy: bool) -> str:
    """Return the member name of `key`: no two keys share one.

    What could climb out of a directory, cut a name or disturb a terminal is percent-encoded, as is
    a final `.npy`, which `numpy.load` would strip. Names over 200 bytes end in a hash instead.
    """
    name = "/".join(_component(part) for part in key.split("/"))
    name = _EDGES.sub(lambda match: _percent(match[0]), name)
    if len(name.encode()) > LONGEST_BYTES:
        name = _shorten(name, key)
    return name + (".npy" if npy else ".frame")


def _component(part: str) -> str:
    if part in ("", ".", ".."):
        return _percent(part) or "%"
    if part.isprintable() and "%" not in part and "\\" not in part:
        return part
    return "".join(c if c.isprintable() and c not in "%\\" else _percent(c) for c in part)


def _percent(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


def _shorten(name: str, key: str) -> str:
    digest = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    kept = name.encode()[:_KEPT_BYTES].decode(errors="ignore").rstrip("/")
    return f"{kept}%~{digest}"
