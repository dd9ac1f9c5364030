"""Opens the object store that a glacier URL names.

A path and `file://` need no package; every other scheme is served by obstore. Credentials come from
`storage_options` or from the provider's usual chain, never from the URL.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from memories.backends.bucket.directory import DirectoryStore
from memories.backends.bucket.objectstore import ObjectStore
from memories.backends.bucket.retry import RetryingStore, RetryPolicy
from memories.backends.bucket.url import parse_url
from memories.errors import InvalidOptionError

# A folder of our own below the user's prefix: nothing else there is ever read or deleted.
_FIXED_PREFIX = "memories-1"
_CLOUD = {"s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss", "adl", "https"}


def open_store(
    url: str | Path,
    storage_options: Mapping[str, Any] | None = None,
    retry: RetryPolicy | None = None,
) -> ObjectStore:
    """Return the object store at `url`, whose failed requests are repeated as `retry` says.

    Raises:
        InvalidOptionError: the scheme or an option is unknown, or the URL contains credentials.
        MissingPackageError: obstore is needed and not installed.
    """
    retry = retry or RetryPolicy()
    text = str(url)
    parts = parse_url(text)
    if parts.scheme == "file":
        path = Path(unquote(parts.path) if "://" in text else text)
        try:
            directory = path.expanduser() / _FIXED_PREFIX
        except RuntimeError as error:  # The process has no home directory.
            raise InvalidOptionError(f"glacier_url={text!r} leads nowhere: {error}") from error
        return RetryingStore(DirectoryStore(directory), retry)
    if parts.scheme not in _CLOUD:
        raise InvalidOptionError(
            f"glacier_url begins with {parts.scheme!r}, which is not a known scheme: give a path, "
            "file://, s3://, gs:// or az://"
        )
    from memories.backends.bucket.cloud import CloudStore

    return RetryingStore(CloudStore(parts, _FIXED_PREFIX, storage_options or {}), retry)
