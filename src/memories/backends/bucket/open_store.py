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
    directory = local_path(text)
    if directory is not None:
        return RetryingStore(DirectoryStore(directory / _FIXED_PREFIX), retry)
    parts = parse_url(text)
    if parts.scheme not in _CLOUD:
        raise InvalidOptionError(
            f"glacier_url begins with {parts.scheme!r}, which is not a known scheme: give a path, "
            "file://, s3://, gs:// or az://"
        )
    from memories.backends.bucket.cloud import CloudStore

    return RetryingStore(CloudStore(parts, _FIXED_PREFIX, storage_options or {}), retry)


def local_path(url: str) -> Path | None:
    """Return the directory that `url` names on this machine; None if it names a bucket.

    Raises:
        InvalidOptionError: it begins with `~`, and there is no home directory.
    """
    parts = parse_url(url)
    if parts.scheme != "file":
        return None
    try:
        return Path(unquote(parts.path) if "://" in url else url).expanduser()
    except RuntimeError as error:
        raise InvalidOptionError(f"glacier_url={url!r} leads nowhere: {error}") from error
