"""A configuration for boto3 is read as boto3 reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from memories import InvalidOptionError
from memories.backends.bucket.aws_profile import complete

NAMES = ("ACCESS_KEY_ID", "PROFILE", "DEFAULT_PROFILE", "REGION", "DEFAULT_REGION", "ENDPOINT_URL")


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the two files, and remove everything else that names credentials."""
    for name in (*NAMES, "ENDPOINT_URL_S3", "ENDPOINT", "WEB_IDENTITY_TOKEN_FILE", "SESSION_TOKEN"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    config, credentials = tmp_path / "config", tmp_path / "credentials"
    config.write_text("[profile archive]\nregion = eu-north-1\nendpoint_url = https://s3.test/\n")
    credentials.write_text("[archive]\naws_access_key_id = id\naws_secret_access_key = secret\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))


def completed(**config: Any) -> dict[str, Any]:
    """Return the options after they were completed."""
    complete(config, {}, frozenset())
    return config


def test_a_named_profile_gives_keys_region_and_endpoint() -> None:
    """What works with boto3 must work here without another word."""
    assert {
        "access_key_id": "id",
        "secret_access_key": "secret",
        "region": "eu-north-1",
        "endpoint": "https://s3.test",
    } == completed(profile="archive")


def test_the_environment_takes_precedence_over_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its order is the one of boto3."""
    monkeypatch.setenv("AWS_PROFILE", "archive")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    assert "us-west-2" == completed()["region"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "other")
    assert "access_key_id" not in completed()  # The client reads it from the environment itself.


def test_an_unknown_profile_is_refused_by_name() -> None:
    """The list of those that exist shows the mistyped letter."""
    with pytest.raises(InvalidOptionError, match=r"'archve'.*there are: archive"):
        completed(profile="archve")


def test_an_endpoint_without_a_scheme_is_refused() -> None:
    """The client would panic on it."""
    with pytest.raises(InvalidOptionError, match="http"):
        completed(endpoint="s3.test")
