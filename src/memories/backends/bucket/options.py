"""The limits of an archive, and `storage_options` sorted into the options of obstore and our own.

The names of fsspec (s3fs, gcsfs, adlfs) are accepted for the common options. Their values are
checked by obstore, which also names the options that it does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from memories.backends.bucket import aws_profile
from memories.backends.bucket.lease import LEASE_SECONDS
from memories.backends.bucket.local_db import WAL_BYTES
from memories.errors import InvalidOptionError
from memories.progress import Bars

Progress = Callable[[str, int, int], None]  # The key, bytes done, bytes in all.

_FSSPEC_NAMES = {
    "key": "access_key_id",
    "secret": "secret_access_key",
    "token": "session_token",
    "endpoint_url": "endpoint",
    "region_name": "region",
    "anon": "skip_signature",
    "aws_profile": "profile",
}
_CLIENT_OPTIONS = {
    "allow_http", "allow_invalid_certificates", "connect_timeout", "default_content_type",
    "default_headers", "http1_only", "http2_keep_alive_interval", "http2_keep_alive_timeout",
    "http2_keep_alive_while_idle", "http2_only", "pool_idle_timeout", "pool_max_idle_per_host",
    "proxy_url", "proxy_ca_certificate", "proxy_excludes", "root_certificate",
    "randomize_addresses", "read_timeout", "timeout", "user_agent",
}  # fmt: skip
S3_SCHEMES = {"s3", "s3a"}
_OURS = {"bytes_per_second", "concurrency", "progress"}
_MAX_CONCURRENCY = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketLimits:
    """Sizes, times and rates of an archive.

    Attributes:
        small_bytes: Frames up to this size are uploaded in packs.
        pack_bytes: A pack of this size is full.
        wal_bytes: The log of the map is copied into the map when it is this long.
        flush_seconds: How long a staged value waits for its upload at most.
        grace_seconds: How long a dead object stays.
        lease_seconds: How long a lease that is not renewed keeps other writers away.
        concurrency: Parallel requests of one read.
        bytes_per_second: The highest rate of transfers, or None.
    """

    small_bytes: int = 256 * 1024
    pack_bytes: int = 8 * 1024 * 1024
    wal_bytes: int = WAL_BYTES
    flush_seconds: float = 30.0
    grace_seconds: float = 7 * 86400
    lease_seconds: float = LEASE_SECONDS
    concurrency: int = 32
    bytes_per_second: float | None = None

    @classmethod
    def within(cls, room: int) -> BucketLimits:
        """Return limits with which staged values and the log of the map take `room` bytes at most.

        One pack is uploaded while the next one fills, and both may be in the log, too. What would
        fill a pack alone is uploaded alone.
        """
        most = cls()
        pack = min(most.pack_bytes, room // 8)
        return cls(
            small_bytes=min(most.small_bytes, pack),
            pack_bytes=pack,
            wal_bytes=min(most.wal_bytes, room // 4),
        )


def archive_options(
    options: Mapping[str, Any], limits: BucketLimits, progress: Progress | None
) -> tuple[dict[str, Any], BucketLimits, Progress | None]:
    """Return the options of the store, and `limits` and `progress` with those of the archive.

    Raises:
        InvalidOptionError: an option of the archive has an impossible value.
    """
    theirs = {name: value for name, value in options.items() if name not in _OURS}
    ours = {name: value for name, value in options.items() if name in _OURS and value is not None}
    concurrency = ours.get("concurrency", limits.concurrency)
    if type(concurrency) is not int or not 1 <= concurrency <= _MAX_CONCURRENCY:
        raise InvalidOptionError(
            f"concurrency={concurrency!r:.40} must be how many requests may run at once, 1 to "
            f"{_MAX_CONCURRENCY}"
        )
    rate = ours.get("bytes_per_second", limits.bytes_per_second)
    if rate is not None and (
        isinstance(rate, bool) or not isinstance(rate, int | float) or not rate > 0
    ):
        raise InvalidOptionError(f"bytes_per_second={rate!r:.40} must be a positive number")
    report = ours.get("progress", progress)
    if report is True:
        report = Bars()
    elif report is False:
        report = None
    elif report is not None and not callable(report):
        raise InvalidOptionError("progress must be True or a function of key, done and all bytes")
    return theirs, replace(limits, concurrency=concurrency, bytes_per_second=rate), report


def split_options(
    scheme: str, options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Return the store's options, the HTTP client's, and a credential provider or None."""
    config: dict[str, Any] = {}
    client: dict[str, Any] = {}
    for name, value in _flat(options).items():
        name = _FSSPEC_NAMES.get(name, name) if scheme in S3_SCHEMES else name
        (client if name in _CLIENT_OPTIONS else config)[name] = value
    if scheme in S3_SCHEMES:
        return config, client, aws_profile.complete(config, client, frozenset(_CLIENT_OPTIONS))
    if str(config.get("endpoint", "")).startswith("http://"):
        client.setdefault("allow_http", True)
    return config, client, None


def client_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the HTTP client's options with our defaults: no request lasts for ever."""
    return {"connect_timeout": "5s", "timeout": "60s", **given}


def _flat(options: Mapping[str, Any]) -> dict[str, Any]:
    flat = {name: value for name, value in options.items() if value is not None}
    for nested in ("client_kwargs", "client_options", "config"):
        flat |= flat.pop(nested, {})
    return flat
