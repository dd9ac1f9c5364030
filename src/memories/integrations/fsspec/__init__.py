"""File systems of fsspec over the tiers: `memories://name/key` and `memories::s3://bucket/key`."""

from __future__ import annotations

from memories.foundation.optional_imports import require

require("fsspec", extra="fsspec")

import fsspec  # noqa: E402

from memories.integrations.fsspec.cached_files import CachedFileSystem  # noqa: E402
from memories.integrations.fsspec.files import MemoriesFileSystem  # noqa: E402
from memories.integrations.managers import register  # noqa: E402

# An installed package says so by an entry point; sources that are only on the path do not.
fsspec.register_implementation("memories", MemoriesFileSystem, clobber=True)

__all__ = ["CachedFileSystem", "MemoriesFileSystem", "register"]
