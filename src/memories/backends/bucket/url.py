"""From a URL to an object store: one table of schemes.

Not a parser of credentials: those come by `storage_options` or each cloud's usual chain.
A path and `file://` need no package; everything else is obstore's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from memories.backends.bucket.directory import DirectoryStore
from memories.backends.bucket.objectstore import ObjectStore
from memories.backends.bucket.retry import RetryingStore, RetryPolicy
from memories.backends.bucket.url_parts import parse_url
from memories.errors import InvalidOptionError

_FIXED_PREFIX = "memories-1"  # Under the user's prefix, so that nothing of his is ever ours.
_CLOUD = {"s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss", "adl", "https"}


def open_store(
    url: str | Path,
    storage_options: Mapping[str, Any] | None = None,
    retry: RetryPolicy | None = None,
) -> ObjectStore:
    """Return the object store at `url`, retried as `retry` says.

    Raises:
        InvalidOptionError: the scheme is unknown, or an option is.
        MissingPackageError: obstore is needed and not installed.
    """
    retry = retry or RetryPolicy()
    text = str(url)
    address = parse_url(text)
    scheme = address.scheme
    if scheme == "file":
        path = Path(unquote(address.path) if "://" in text else text)
        try:
            directory = path.expanduser() / _FIXED_PREFIX
        except RuntimeError as error:  # There is no home.
            raise InvalidOptionError(f"glacier_url={text!r} leads nowhere: {error}") from error
        return RetryingStore(DirectoryStore(directory), retry)
    if scheme not in _CLOUD:
        raise InvalidOptionError(
            f"glacier_url begins with {scheme!r}, which no object store answers to: give a path, "
            "file://, s3://, gs:// or az://."
        )
    from memories.backends.bucket.cloud import CloudStore

    return RetryingStore(CloudStore(text, _FIXED_PREFIX, storage_options or {}), retry)
