"""The parts of a glacier URL."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote

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
