"""The manifest of the index: which runs there are, and how far they cover the log.

Where it is missing or damaged, the log is read from its start.
"""

from __future__ import annotations

import msgspec
from xxhash import xxh3_64_intdigest

from memories.backends.disk.files import Files
from memories.backends.disk.paths import StorePaths, write_whole
from memories.backends.disk.seal import StoreSeal
from memories.errors import StorageError
from memories.foundation.regular_file import read_regular
from memories.model.record import Natural

# The first one counted value files by their bytes, and not by the blocks they take; the runs of the
# second one do not say below which segment the earlier records of a key lie.
VERSION = 3
_MARK = b"mMan"
_MAGIC = _MARK + VERSION.to_bytes(4, "little")


class FileStats(msgspec.Struct, array_like=True):
    """One segment or pack: how much of it there is, and how much of that is live."""

    size: Natural
    live: Natural = 0
    tombstones: Natural = (
        0  # Bytes of tombstones; needed while a segment from `lowest` on is older.
    )
    lowest: Natural = 0  # The lowest segment that may hold a record they remove.


class IndexManifest(msgspec.Struct, kw_only=True):
    """A checkpoint of everything that a scan of the log yields."""

    runs: list[Natural]  # Newest first.
    segment: Natural  # The log is covered up to here, and synced.
    offset: Natural
    segments: dict[Natural, FileStats]
    packs: dict[Natural, FileStats]
    next_file: Natural
    last_version: Natural
    keys: Natural
    elsewhere: Natural
    live: Natural
    value_bytes: Natural
    retired: list[tuple[Natural, Natural]]  # Dead value files not yet unlinked: number and bytes.


def save(manifest: IndexManifest, paths: StorePaths, files: Files) -> None:
    """Replace the manifest, atomically."""
    body = msgspec.msgpack.encode(manifest)
    if files.seal is not None:
        body = files.seal.manifest(body)
    digest = xxh3_64_intdigest(body).to_bytes(8, "little")
    write_whole(files, paths.manifest, _MAGIC + digest + body)


def version_of(paths: StorePaths) -> int:
    """Return the version of the manifest of a store; 0 if it has none.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        front = read_regular(paths.manifest).data[:8]
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise StorageError(f"{paths.manifest} cannot be read: {error.strerror}") from error
    return int.from_bytes(front[4:], "little") if front.startswith(_MARK) else 0


def load(data: bytes, seal: StoreSeal | None = None) -> IndexManifest | None:
    """Return the manifest in `data`, or None if it is damaged."""
    if not data.startswith(_MAGIC) or len(data) < 16:
        return None
    body = data[16:]
    if xxh3_64_intdigest(body).to_bytes(8, "little") != data[8:16]:
        return None
    if seal is not None:
        opened = seal.open_manifest(body)
        if opened is None:
            return None
        body = opened
    try:
        found = msgspec.msgpack.decode(body, type=IndexManifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return found if _is_consistent(found) else None


def _is_consistent(manifest: IndexManifest) -> bool:
    """Return whether the figures can be true together: space is made by them."""
    files = [*manifest.segments.values(), *manifest.packs.values()]
    held = sum(stats.size for stats in files) + manifest.value_bytes
    retired = sum(nbytes for _, nbytes in manifest.retired)
    return (
        all(stats.live + stats.tombstones <= stats.size for stats in files)
        and manifest.live <= held
        and retired <= manifest.value_bytes
        and manifest.elsewhere <= manifest.keys
        and len(set(manifest.runs)) == len(manifest.runs)
    )
