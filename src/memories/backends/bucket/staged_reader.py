"""Reads a value that the writer of this machine has staged, from a process that only reads.

The writer's file is opened read-only, for one query.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from memories.backends.bucket.local_db import ERRORS, require_own_files
from memories.backends.bucket.location import ObjectLocation
from memories.errors import StorageError


def read_staged(directory: Path, place: ObjectLocation) -> memoryview | None:
    """Return a frame that the writer has staged, or None."""
    path = directory / "glacier.sqlite"
    if not path.exists():
        return None
    require_own_files(path)
    try:
        uri = f"file:{quote(str(path.absolute()))}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=5)) as database:
            found = database.execute(
                "SELECT frame FROM staged WHERE token = ? AND offset = ?",
                (place.token, place.offset),
            ).fetchone()
    except ERRORS as error:
        raise StorageError(f"the archive's map {path} cannot be read: {error}") from error
    if found is None:
        return None
    if not isinstance(found[0], bytes):
        raise StorageError(f"the archive's map {path} holds something else than a frame")
    return memoryview(found[0])
