"""Asks S3 to restore an object from an archive class, for which obstore has no call.

The provider takes minutes to days; `BucketBackend.restore` waits. boto3 sends the one request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memories.backends.bucket.options import S3_SCHEMES, split_options
from memories.backends.bucket.url import BucketUrl
from memories.errors import ArchivedError, UnavailableError
from memories.foundation.optional_imports import require

HOW = (
    "retrieve it with timeout= to start the restore and wait for it, or start it in the provider's "
    "console; S3 Glacier Flexible Retrieval takes minutes to 12 hours, Deep Archive up to 48"
)
_BOTO_NAMES = {
    "access_key_id": "aws_access_key_id",
    "secret_access_key": "aws_secret_access_key",
    "session_token": "aws_session_token",
    "region": "region_name",
    "endpoint": "endpoint_url",
}


def request_restore(
    url: BucketUrl, fixed_prefix: str, storage_options: Mapping[str, Any], name: str, days: int
) -> None:
    """Ask for a readable copy of an object, for `days` days.

    Raises:
        ArchivedError: no restore can be requested at this provider.
        UnavailableError: the request was refused.
        MissingPackageError: boto3 is not installed.
    """
    if url.scheme not in S3_SCHEMES:
        raise ArchivedError(
            f"an object of {url} must be restored from its archive class by the provider's tools; "
            "only S3 can be asked from here"
        )
    key = "/".join(filter(None, [url.prefix, fixed_prefix, name]))
    client, errors = _client(url.scheme, storage_options)
    try:
        client.restore_object(Bucket=url.host, Key=key, RestoreRequest={"Days": days})
    except errors.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code == "RestoreAlreadyInProgress":
            return
        reason = f"answered {code}"
    except errors.BotoCoreError as error:
        reason = f"failed with {type(error).__name__}"
    else:
        return
    raise UnavailableError(f"the request to restore an object of {url} {reason}")


def _client(scheme: str, storage_options: Mapping[str, Any]) -> tuple[Any, Any]:
    boto3 = require("boto3", extra="restore")
    botocore = require("botocore", extra="restore")
    config, _, _ = split_options(scheme, {**storage_options, "profile": None})
    plain = {name.removeprefix("aws_"): value for name, value in config.items()}
    options = {theirs: plain[ours] for ours, theirs in _BOTO_NAMES.items() if ours in plain}
    settings: dict[str, Any] = {"s3": {"addressing_style": "path"}} if "endpoint" in plain else {}
    if str(plain.get("skip_signature", "")).lower() == "true":
        settings["signature_version"] = botocore.UNSIGNED
    session = boto3.Session(profile_name=storage_options.get("profile"))
    settings |= {"connect_timeout": 5, "read_timeout": 30, "retries": {"total_max_attempts": 5}}
    client = session.client("s3", config=botocore.config.Config(**settings), **options)
    return client, require("botocore.exceptions", extra="restore")
