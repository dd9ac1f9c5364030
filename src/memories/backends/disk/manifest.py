"""The manifest of the index: which runs there are, and how far they cover the log.

Where it is missing or damaged, the log is read from its start.
"""

from __future__ import annotations

import msgspec
from xxhash import xxh3_64_intdigest

from memories.backends.disk.files import Files
from memories.backends.disk.paths import StorePaths, write_whole

_MAGIC = b"mMan\1\0\0\0"


class FileStats(msgspec.Struct, array_like=True):
    """One segment or pack: how much of it there is, and how much of that is live."""

    size: int
    live: int = 0
    tombstones: int = 0  # Bytes of tombstones; needed while a segment from `lowest` on is older.
    lowest: int = 0  # The lowest segment that may hold a record they remove.


class IndexManifest(msgspec.Struct, kw_only=True):
    """A checkpoint of everything that a scan of the log yields."""

    runs: list[int]  # Newest first.
    segment: int  # The log is covered up to here, and synced.
    offset: int
    segments: dict[int, FileStats]
    packs: dict[int, FileStats]
    next_file: int
    last_version: int
    keys: int
    elsewhere: int
    live: int
    value_bytes: int
    retired: list[tuple[int, int]]  # Dead value files not yet unlinked: number and bytes.


def save(manifest: IndexManifest, paths: StorePaths, files: Files) -> None:
    """Replace the manifest, atomically."""
    body = msgspec.msgpack.encode(manifest)
    digest = xxh3_64_intdigest(body).to_bytes(8, "little")
    write_whole(files, paths.manifest, _MAGIC + digest + body)


def load(data: bytes) -> IndexManifest | None:
    """Return the manifest in `data`, or None if it is damaged."""
    if not data.startswith(_MAGIC) or len(data) < 16:
        return None
    body = data[16:]
    if xxh3_64_intdigest(body).to_bytes(8, "little") != data[8:16]:
        return None
    try:
        return msgspec.msgpack.decode(body, type=IndexManifest)
    except msgspec.MsgspecError:
        return None
