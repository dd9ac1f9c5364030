"""AWS settings in the environment and in ~/.aws, read as boto3 reads them.

Keys in the environment, web identities and machine roles are found by obstore. Settings that need
more than two files (single sign-on, assumed roles, processes) are left to boto3, if installed.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memories.errors import InvalidOptionError
from memories.foundation.optional_imports import require

_KEYS = {"access_key_id", "aws_access_key_id", "skip_signature", "aws_skip_signature"}
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_NEEDS_BOTO = ("role_arn", "sso_session", "sso_start_url", "credential_process")
_FROM_PROFILE = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
}


def complete(config: dict[str, Any], client: dict[str, Any], known: frozenset[str]) -> Any:
    """Add to options what the environment and the profile say; return a credential provider, too.

    That is None where obstore finds the credentials itself. `known` are the names of the client's
    options, which replace those of the environment unless they are among them.

    Raises:
        InvalidOptionError: the profile does not exist, or the endpoint is not a URL.
        MissingPackageError: the profile needs boto3.
    """
    named = config.pop("profile", None)
    chosen = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE")
    profile = _profile(named or chosen)
    provider = None
    if named is not None or not _has_credentials(config):
        provider = _take_credentials(profile, config, named)
    _fill(config, "region", "AWS_REGION", "AWS_DEFAULT_REGION", default=profile.get("region"))
    _fill(config, "endpoint", *_ENDPOINTS, default=profile.get("endpoint_url"))
    for name in known:
        _fill(client, name, f"AWS_{name.upper()}")
    _check_endpoint(config, client)
    return provider or _apart_from_environment(config)


def _apart_from_environment(config: Mapping[str, Any]) -> Any:
    """Return what keeps the environment's session token away from keys that it is not for."""
    plain = {name.removeprefix("aws_"): value for name, value in config.items()}
    if "access_key_id" not in plain or "session_token" in plain or "token" in plain:
        return None
    if not os.environ.get("AWS_SESSION_TOKEN"):
        return None
    given = {
        "access_key_id": plain["access_key_id"],
        "secret_access_key": plain.get("secret_access_key", ""),
        "token": None,
        "expires_at": None,
    }
    return lambda: given


def _fill(options: dict[str, Any], name: str, *variables: str, default: str | None = None) -> None:
    """Set an option from the first of the environment's `variables` that is set."""
    if name in options or f"aws_{name}" in options:
        return
    found = [os.environ[one] for one in variables if os.environ.get(one)]
    value = found[0] if found else default
    if value:
        options[name] = value


def _check_endpoint(config: dict[str, Any], client: dict[str, Any]) -> None:
    name = next((one for one in ("endpoint", "aws_endpoint") if one in config), None)
    if name is None:
        return
    endpoint = str(config[name]).strip()
    scheme, mark, host = endpoint.partition("://")
    if scheme.lower() not in ("http", "https") or not mark or not host.strip("/") or " " in host:
        raise InvalidOptionError(
            f"the endpoint {endpoint!r:.100} is not a URL: write http:// or https:// "
            "before the host"
        )
    config[name] = endpoint.rstrip("/")
    if scheme.lower() == "http":
        client.setdefault("allow_http", True)


def _has_credentials(config: Mapping[str, Any]) -> bool:
    variables = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE")
    return bool(_KEYS & set(config)) or any(os.environ.get(name) for name in variables)


def _take_credentials(profile: Mapping[str, str], config: dict[str, Any], named: str | None) -> Any:
    if named is not None:
        for ours in _FROM_PROFILE.values():
            config.pop(ours, None)
    if "aws_access_key_id" in profile and "aws_secret_access_key" in profile:
        for theirs, ours in _FROM_PROFILE.items():
            if theirs in profile:
                config[ours] = profile[theirs]
        return None
    if not any(name in profile for name in _NEEDS_BOTO):
        return None
    session = require("boto3", extra="restore").Session(profile_name=profile["name"])
    return require("obstore.auth.boto3", extra="glacier").Boto3CredentialProvider(session)


def _profile(name: str | None) -> dict[str, str]:
    """Return what both files say of a profile; nothing of the default one where there is none.

    Raises:
        InvalidOptionError: a profile that was named is in neither file, or a file is malformed.
    """
    files = {
        _file("AWS_CONFIG_FILE", "config"): "profile ",
        _file("AWS_SHARED_CREDENTIALS_FILE", "credentials"): "",
    }
    wanted = name or "default"
    found: dict[str, str] = {}
    sections: list[str] = []
    for path, prefix in files.items():
        parser = configparser.RawConfigParser(default_section="", strict=False)
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError) as error:
            line = str(error).splitlines()[0]
            raise InvalidOptionError(f"{path} cannot be read as a profile file: {line}") from error
        for section in parser.sections():
            sections.append(section.removeprefix(prefix))
            if section in (wanted, prefix + wanted):
                found |= {key: value.strip() for key, value in parser.items(section)}
    if name is not None and name not in sections:
        known = ", ".join(sorted(set(sections))) or "none"
        raise InvalidOptionError(
            f"profile {name!r:.60} is in neither of {' and '.join(map(str, files))}; "
            f"there are: {known:.300}"
        )
    return {**found, "name": wanted}


def _file(variable: str, name: str) -> Path:
    path = Path(os.environ.get(variable) or Path("~", ".aws", name))
    try:
        return path.expanduser()
    except RuntimeError:
        return path  # Without a home directory, the file cannot exist.
