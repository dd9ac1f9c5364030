"""`kill -9` at any moment loses nothing that was acknowledged, and leaves nothing behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.support.children import disk_writer
from tests.support.children.disk_writer import content

from memories.backends.disk import DiskBackend

CHILD = Path(disk_writer.__file__)


def test_thirty_kills(tmp_path: Path) -> None:
    """Store, overwrite, delete, checkpoint and compact, killed after a random while."""
    campaign(tmp_path / "s", runs=30, seed=1)


def campaign(path: Path, *, runs: int, seed: int) -> None:
    chance = random.Random(seed)
    held: dict[str, tuple[int, int]] = {}
    steps = 0
    for run in range(runs):
        lines = killed(path, seed * 1000 + run, chance.uniform(0.0, 0.2))
        steps += len(lines)
        pending = follow(held, lines)
        with DiskBackend(path) as backend:
            assert backend.check() == []
            verify(backend, held, pending)
    assert steps > runs * 20
    assert not (path / "log" / "00000001.seg").exists(), "nothing was ever compacted"


def killed(path: Path, seed: int, seconds: float) -> list[list[str]]:
    """Let the child work for a while after its first acknowledgement, and kill it."""
    child = subprocess.Popen(
        [sys.executable, str(CHILD), str(path), str(seed)], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    first = child.stdout.readline()
    time.sleep(seconds)
    os.kill(child.pid, signal.SIGKILL)
    rest = child.stdout.read()
    child.stdout.close()
    child.wait()
    return [line.split() for line in (first + rest).decode().splitlines()]


def follow(held: dict[str, tuple[int, int]], lines: list[list[str]]) -> list[str] | None:
    """Apply what was acknowledged to `held`, and return what was under way."""
    pending = None
    for line in lines:
        mark, key, version, size = line
        pending = line if mark == "?" else None
        if mark == "!":
            held[key] = (int(version), int(size))
    return pending


def verify(
    backend: DiskBackend, held: dict[str, tuple[int, int]], pending: list[str] | None
) -> None:
    if pending is not None:
        _, key, version, size = pending
        found = backend.lookup(key)
        if found is not None and found.version == int(version):
            held[key] = (int(version), int(size))
        elif found is None and size == "-1":
            held[key] = (int(version), -1)
    wanted = {key: version for key, (version, size) in held.items() if size >= 0}
    assert wanted == {record.key: record.version for record in backend.scan()}
    for record in backend.scan():
        version, size = held[record.key]
        assert content(version, size) == backend.read(record)
