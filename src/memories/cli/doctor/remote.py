"""Checks what is not on this machine: an archive with its credentials, and nodes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

from memories.cli.doctor.result import DoctorResult, Level, fine, judged
from memories.errors import MemoriesError

# Where the usual chain of each cloud finds credentials: variables, or a file of its tool.
CHAINS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "s3": (("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"), ".aws/credentials"),
    "gs": (("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT"), ".config/gcloud"),
    "az": (("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_CLIENT_ID"), ".azure"),
}
SAME = {"s3a": "s3", "gcs": "gs", "azure": "az", "abfs": "az", "abfss": "az", "adl": "az"}
WAIT_SECONDS = 3.0
OLDEST = (6, 0)


def check(glacier: str | None, nodes: tuple[str, ...]) -> Iterator[DoctorResult]:
    """Yield the results for the archive and for each node."""
    if glacier is not None:
        yield _credentials(glacier)
        yield _archive(glacier)
    for node in nodes:
        yield _node(node)


def _credentials(url: str) -> DoctorResult:
    scheme = urlsplit(url).scheme
    chain = CHAINS.get(SAME.get(scheme, scheme))
    if chain is None:
        return fine("credentials", "none needed")
    variables, file = chain
    found = [name for name in variables if os.environ.get(name)]
    if _in_home(file):
        found.append(f"~/{file}")
    return judged(
        "credentials",
        bool(found),
        f"from {', '.join(found)}" if found else "none in the environment",
        f"set {variables[0]}, or use the role of the machine",
    )


def _in_home(file: str) -> bool:
    try:
        return (Path.home() / file).exists()
    except RuntimeError:
        return False  # The process has no home directory.


def _archive(url: str) -> DoctorResult:
    from memories.backends.bucket.open_store import open_store
    from memories.backends.bucket.retry import RetryPolicy

    try:
        store = open_store(url, retry=RetryPolicy(attempts=2, total_seconds=WAIT_SECONDS))
        try:
            listed = len(list(islice(store.list(""), 10)))
        finally:
            store.close()
    except MemoriesError as error:
        advice = "check the address, the credentials and the network"
        return DoctorResult("archive", Level.BAD, str(error), advice)
    return fine("archive", "answers, " + ("holds objects" if listed else "is empty"))


def _node(node: str) -> DoctorResult:
    from memories.cluster.client.connection import Connection
    from memories.cluster.client.node import parse_info
    from memories.cluster.connect import check_addresses
    from memories.cluster.permissions import missing_permissions

    name = "a node"
    limits = {"connect_seconds": WAIT_SECONDS, "call_seconds": WAIT_SECONDS}
    try:
        (address,) = check_addresses([node], {})
        name = address.name  # Without the password that its URL may have.
        with Connection(address, **limits) as connection:  # type: ignore[arg-type]
            facts = parse_info(connection.call("INFO", "server"))
            version = facts.get("valkey_version") or facts.get("redis_version")
            if version is None:
                what = f"{name} does not say its version"
                return DoctorResult("node", Level.BAD, what, "is it a Valkey server?")
            clustered = facts.get("redis_mode", facts.get("server_mode")) == "cluster"
            missing = missing_permissions(connection, clustered=clustered)
    except MemoriesError as error:
        advice = "start it, or correct the address, user and password"
        return DoctorResult("node", Level.BAD, f"{name}: {error}", advice)
    if missing:
        rules = " ".join(f"+{one}" for one in missing)
        what = f"{name}: the user may not run {', '.join(missing)}"
        return DoctorResult("node", Level.WARN, what, f"grant it: ACL SETUSER ... {rules}")
    number = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    return judged("node", number >= OLDEST, f"{name}: version {version}", "use 6.0 or newer")
