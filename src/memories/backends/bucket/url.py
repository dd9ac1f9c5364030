"""A glacier URL: its parts, and the object store that it names.

A path and `file://` need no package; every other scheme is served by obstore. Credentials come from
`storage_options` or from the provider's usual chain, never from the URL.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from memories.backends.bucket.directory import DirectoryStore
from memories.backends.bucket.objectstore import ObjectStore
from memories.backends.bucket.retry import RetryingStore, RetryPolicy
from memories.errors import InvalidOptionError

# A folder of our own below the user's prefix: nothing else there is ever read or deleted.
_FIXED_PREFIX = "memories-1"
_CLOUD = {"s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss", "adl", "https"}
_WITH_CONTAINER = {"abfs", "abfss"}  # Their URLs are abfss://container@account.host/prefix.


class BucketUrl(NamedTuple):
    """The parts of a glacier URL. None of them is a fragment: a prefix may contain a `#`."""

    scheme: str
    host: str  # The bucket or container.
    path: str  # Still percent-encoded.

    @property
    def prefix(self) -> str:
        """Return the path decoded, without slashes around it."""
        return unquote(self.path).strip("/")

    @property
    def private(self) -> bool:
        """Return whether it has a user, a password or a query, which may be credentials."""
        user, _, _ = self.host.rpartition("@")
        harmless = not user or (self.scheme in _WITH_CONTAINER and ":" not in user)
        return not harmless or "?" in self.path or "?" in self.host

    def __str__(self) -> str:
        """Return it as it was given, without slashes at its end."""
        return f"{self.scheme}://{self.host}{self.path}".rstrip("/")


def parse_url(url: str) -> BucketUrl:
    """Return the parts of a URL; a path is one of the scheme `file`."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return BucketUrl("file", "", url)
    host, slash, path = rest.partition("/")
    return BucketUrl(scheme.lower(), host, slash + path)


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
        except RuntimeError as error:  # There is no home.
            raise InvalidOptionError(f"glacier_url={text!r} leads nowhere: {error}") from error
        return RetryingStore(DirectoryStore(directory), retry)
    if parts.scheme not in _CLOUD:
        raise InvalidOptionError(
            f"glacier_url begins with {parts.scheme!r}, which is not a known scheme: give a path, "
            "file://, s3://, gs:// or az://"
        )
    from memories.backends.bucket.cloud import CloudStore

    return RetryingStore(CloudStore(parts, _FIXED_PREFIX, storage_options or {}), retry)
