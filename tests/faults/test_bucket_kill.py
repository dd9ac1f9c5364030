"""The writer of an archive, killed while it archives, packs, removes and reclaims.

What was acknowledged is there, what was undone stays undone, and what was under way is there whole
or not at all: for the same store that opens again, and at the end for a machine that knows only
the URL.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support.buckets import seaweed
from tests.support.buckets.fixtures import s3, s3_url  # noqa: F401
from tests.support.children import bucket_writer

from memories.backends.bucket import BucketBackend

Possible = dict[
    str, list[tuple[int, int]]
]  # Per key: the version that counts, then what may count.


def run_and_kill(url: str, options: str, home: Path, seed: int, count: int) -> list[str]:
    """Return the lines of a child that was killed soon after `count`, fast machine or slow."""
    command = [
        sys.executable, bucket_writer.__file__, url, options, str(home), str(seed)
    ]  # fmt: skip
    # Unbuffered: what a buffered stream has read ahead, `communicate` would not return.
    child = subprocess.Popen(command, bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None and child.stderr is not None
    first = b"".join(child.stdout.readline() for _ in range(count))
    assert first, child.stderr.read()
    time.sleep(random.Random(seed).uniform(0.0, 0.01))
    child.send_signal(signal.SIGKILL)
    rest, errors = child.communicate(timeout=60)
    assert -signal.SIGKILL == child.returncode, errors
    whole, _, _ = (first + rest).decode().rpartition("\n")
    return whole.splitlines()


def record(possible: Possible, lines: list[str]) -> None:
    """Add what a child said to what is known; what it began may have happened or not."""
    for line in lines:
        mark, key, version, size = line.split()
        said = (int(version), int(size))
        if mark == "!":
            possible[key] = [said]
        else:
            possible.setdefault(key, [(0, -1)]).append(said)


def check(backend: BucketBackend, possible: Possible) -> None:
    """Hold the archive against what is known, and learn which of the unknown things happened."""
    for key, candidates in possible.items():
        found = backend.lookup(key)
        if found is None:
            assert any(size == -1 for _, size in candidates), (key, candidates)
            possible[key] = [one for one in candidates if one[1] == -1][-1:]
            continue
        size = dict(candidates).get(found.version, -1)
        assert size != -1, (key, found.version, candidates)
        assert bucket_writer.content(found.version, size) == bytes(backend.read(found))
        possible[key] = [(found.version, size)]
    assert [] == [problem for problem in backend.check() if problem.key is not None]


def campaign(url: str, options: dict[str, object], home: Path, runs: int) -> None:
    chance, possible = random.Random(runs), Possible()
    for seed in range(runs):
        lines = chance.choice([1, 5, 25, 100, 300])
        record(possible, run_and_kill(url, json.dumps(options), home, seed, lines))
        with_options = BucketBackend(url, storage_options=options, directory=home)
        check(with_options, possible)
        with_options.close()
    fresh = BucketBackend(url, storage_options=options, directory=home / "fresh")
    check(fresh, possible)
    fresh.close()
    assert any(size > 0 for candidates in possible.values() for _, size in candidates)


def test_a_killed_writer_loses_nothing_in_a_directory(tmp_path: Path) -> None:
    """A few of many; `make torture` runs the rest."""
    campaign(str(tmp_path / "bucket"), {}, tmp_path / "home", runs=4)


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_a_hundred_kills_lose_nothing_in_a_directory(tmp_path: Path) -> None:
    """Rare orders of events need many runs."""
    campaign(str(tmp_path / "bucket"), {}, tmp_path / "home", runs=100)


@pytest.mark.torture
@pytest.mark.server
@pytest.mark.timeout(3600)
def test_kills_lose_nothing_on_a_real_server(
    s3: seaweed.SeaweedServer,  # noqa: F811
    s3_url: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Uploads that are cut off are the server's matter too."""
    campaign(s3_url, s3.storage_options(), tmp_path / "home", runs=15)
