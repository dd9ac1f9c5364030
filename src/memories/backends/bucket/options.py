"""`storage_options` under the names people know, sorted into what obstore takes where.

Not a check of their values: obstore knows its options and says which one it does not.
The names of fsspec (s3fs, gcsfs, adlfs) are accepted for the common ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memories.backends.bucket import aws_profile
from memories.errors import InvalidOptionError
from memories.progress import Bars

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
_MOST_AT_ONCE = 1000


def archive_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is for the store, and what is for the archive above it.

    Raises:
        InvalidOptionError: one of the latter means nothing.
    """
    theirs = {name: value for name, value in options.items() if name not in _OURS}
    ours = {name: value for name, value in options.items() if name in _OURS and value is not None}
    concurrency = ours.get("concurrency", 1)
    if type(concurrency) is not int or not 1 <= concurrency <= _MOST_AT_ONCE:
        raise InvalidOptionError(
            f"concurrency={concurrency!r:.40} must be how many requests may run at once, 1 to "
            f"{_MOST_AT_ONCE}"
        )
    rate = ours.get("bytes_per_second", 1)
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not rate > 0:
        raise InvalidOptionError(f"bytes_per_second={rate!r:.40} must be a positive number")
    if ours.get("progress") is True:
        ours["progress"] = Bars()
    elif ours.get("progress") is False:
        del ours["progress"]
    elif "progress" in ours and not callable(ours["progress"]):
        raise InvalidOptionError("progress must be True or a function of key, done and all bytes")
    return theirs, ours


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
