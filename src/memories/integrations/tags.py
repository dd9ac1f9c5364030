"""Tags of files: what changes when a file does, as fsspec describes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_EXACT = ("ETag", "etag", "e_tag", "md5Hash", "contentHash", "Content-MD5", "Digest", "checksum")
_TIMES = ("mtime", "LastModified", "last_modified", "Last-Modified", "updated", "created")


def tag_of(info: Mapping[str, Any]) -> str | None:
    """Return the ETag in a description of a file, or else its time and size; None without."""
    for name in _EXACT:
        if info.get(name):
            return f"{info[name]}/{info.get('size')}"
    for name in _TIMES:
        if info.get(name):
            return f"{info[name]}/{info.get('size')}/{info.get('ino', '')}"
    return None
