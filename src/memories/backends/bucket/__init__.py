"""The archive in an object store. `backend.py` says what it keeps, `objectstore.py` where."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memories.backends.bucket.backend import BucketBackend
from memories.backends.bucket.options import archive_options

__all__ = ["BucketBackend", "open_bucket"]


def open_bucket(
    url: str | Path, *, storage_options: Mapping[str, Any] | None = None, **options: Any
) -> BucketBackend:
    """Open the archive at `url`: a directory, or any store that obstore knows.

    Among the `storage_options` may be our own: `concurrency`, `bytes_per_second` and `progress`.
    """
    theirs, ours = archive_options(storage_options or {})
    return BucketBackend(url, storage_options=theirs, **ours, **options)
