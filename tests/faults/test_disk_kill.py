"""`kill -9` at any moment loses nothing that was acknowledged, and leaves nothing behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.children import batch_writer, disk_writer
from tests.support.children.disk_writer import content

from memories.backends.disk import DiskBackend, data_keys
from memories.sealing.master_key import EncryptionKey, create_file

CHILD = Path(disk_writer.__file__)


def test_twenty_kills(tmp_path: Path) -> None:
    """Store, overwrite, delete, checkpoint and compact, killed after a random while."""
    campaign(tmp_path / "s", runs=20, seed=1)


def test_kills_of_an_encrypted_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, while its data key is wrapped anew again and again and killed as well."""
    create_file(tmp_path / "key", "prod")
    create_file(tmp_path / "other", "other")
    monkeypatch.setenv("STORE_KEY", f"file:{tmp_path / 'key'}")
    campaign(tmp_path / "s", runs=6, seed=2, turns=rotating(tmp_path))


def rotating(directory: Path) -> Iterator[None]:
    """Between two turns, wrap the data key anew in a process that is killed soon."""
    key, other = (EncryptionKey.from_file(directory / name) for name in ("key", "other"))
    chance = random.Random(5)
    while True:
        child = os.fork()
        if not child:
            while True:
                data_keys.rotate(directory / "s", key, other)
                data_keys.rotate(directory / "s", other, key)
        time.sleep(chance.uniform(0.001, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        by = data_keys.wrapped_keys(directory / "s")[0].name
        assert data_keys.rotate(directory / "s", other if by == "other" else key, key).keys == 1
        yield


@pytest.mark.parametrize("written", [0, 1, 100, 1000, 1279, 1281, 20_000, 57_000, -1])
def test_a_batch_that_was_cut_short_keeps_its_first_values(tmp_path: Path, written: int) -> None:
    """Each record is whole or not there; all are, if only the acknowledgement is missing."""
    child = subprocess.run(
        [sys.executable, "-m", batch_writer.__name__, str(tmp_path / "s"), str(written)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=False,
    )
    assert (-signal.SIGKILL, b"") == (child.returncode, child.stdout)
    with DiskBackend(tmp_path / "s") as backend:
        assert [] == backend.check()
        count = backend.usage().keys - 1
        extent = 1152  # A record's head of 128 bytes, and 1,000 padded to a multiple of 64.
        assert count == (batch_writer.COUNT if written < 0 else written // extent)
        for record in backend.scan():
            assert content(record.version, batch_writer.SIZE) == backend.read(record)
        keys = {"first", *[f"k{number}" for number in range(count)]}
        assert keys == {record.key for record in backend.scan()}


def campaign(path: Path, *, runs: int, seed: int, turns: Iterator[None] | None = None) -> None:
    """Kill so many times; the last process goes on until a segment was compacted."""
    chance = random.Random(seed)
    held: dict[str, tuple[int, int]] = {}
    oldest = path / "log" / "00000001.seg"
    for run in range(runs):
        until = oldest if run == runs - 1 else None
        pending = follow(held, killed(path, seed * 1000 + run, chance, until))
        if turns is not None:
            next(turns)
        key = EncryptionKey.parse(os.environ.get("STORE_KEY"))
        with DiskBackend(path, encryption=key) as backend:
            assert backend.check() == []
            verify(backend, held, pending)


def killed(path: Path, seed: int, chance: random.Random, until: Path | None) -> list[list[str]]:
    """Let the child say so many lines, which a busy machine makes no fewer, and kill it then.

    It goes on as long as there is a file `until`.
    """
    child = subprocess.Popen(
        [sys.executable, str(CHILD), str(path), str(seed)], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    first = b"".join(child.stdout.readline() for _ in range(chance.randrange(1, 600)))
    while until is not None and until.exists():
        first += child.stdout.readline()
    time.sleep(chance.uniform(0.0, 0.01))
    os.kill(child.pid, signal.SIGKILL)
    rest = child.stdout.read()
    child.stdout.close()
    child.wait()
    return [line.split() for line in (first + rest).decode().splitlines()]


def follow(held: dict[str, tuple[int, int]], lines: list[list[str]]) -> list[list[str]]:
    """Apply what was acknowledged to `held`, and return what was under way."""
    pending = []
    for mark, *what in lines:
        if mark == "?":
            pending.append(what)
        else:
            pending.remove(what)
            key, version, size = what
            held[key] = (int(version), int(size))
    return pending


def verify(
    backend: DiskBackend, held: dict[str, tuple[int, int]], pending: list[list[str]]
) -> None:
    # Of a batch whose acknowledgement is missing, the first records are there and no others.
    for key, version, size in pending:
        newest, _ = backend.newest(key)
        dropped = newest == 0 and size == "-1"  # A tombstone that nothing needs is not kept.
        if newest != int(version) and not dropped:
            break
        held[key] = (int(version), int(size))
    wanted = {key: version for key, (version, size) in held.items() if size >= 0}
    assert wanted == {record.key: record.version for record in backend.scan()}
    for record in backend.scan():
        version, size = held[record.key]
        assert content(version, size) == backend.read(record)
