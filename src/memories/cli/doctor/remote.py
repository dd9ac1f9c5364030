"""Checks what is not on this machine: an archive with its credentials, and nodes."""

from __future__ import annotations

import os
import socket
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
MAX_PORT = 65_535
MAX_REPLY_BYTES = 1 << 20


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
    host, _, port = node.rpartition(":")
    if port.isdigit() and int(port) > MAX_PORT:
        return DoctorResult(
            "node", Level.BAD, f"{node}: {port} is not a port", f"give one from 1 to {MAX_PORT}"
        )
    try:
        text = _info(host or node, int(port) if port.isdigit() else 6379)
    except OSError as error:
        return DoctorResult(
            "node", Level.BAD, f"{node}: {error}", "start it, or correct the address"
        )
    facts = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    version = facts.get("valkey_version") or facts.get("redis_version")
    if version is None:
        first = text.strip().splitlines()[0] if text.strip() else "nothing"
        return DoctorResult(
            "node", Level.BAD, f"{node} answers {first!r:.80}", "is it a Valkey server?"
        )
    number = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    return judged("node", number >= OLDEST, f"{node}: version {version}", "use 6.0 or newer")


def _info(host: str, port: int) -> str:
    """Return the reply of a Valkey or Redis server to INFO, or its error."""
    with socket.create_connection((host, port), timeout=WAIT_SECONDS) as connection:
        connection.settimeout(WAIT_SECONDS)
        connection.sendall(b"INFO server\r\n")
        reply = b""
        while len(reply) < MAX_REPLY_BYTES:
            piece = connection.recv(65_536)
            reply += piece
            if not piece or reply.startswith(b"-") or _complete(reply):
                break
    return reply.decode("utf-8", "replace")


def _complete(reply: bytes) -> bool:
    head, newline, body = reply.partition(b"\r\n")
    return bool(newline) and head[1:].isdigit() and len(body) >= int(head[1:])
