"""Long campaigns against the disk store: kills, churn, and real power cuts on a loop mount."""

from __future__ import annotations

import fcntl
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.faults import test_disk_kill, test_manager_kill
from tests.support.children import disk_writer
from tests.support.loop_mounts import mounted, unmount

from memories.backends.disk import DiskBackend
from memories.testing.backends import frame_for, record_for

pytestmark = [pytest.mark.torture, pytest.mark.timeout(7200)]

SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN
WITHOUT_FLUSHING = 2


def test_five_hundred_kills(tmp_path: Path) -> None:
    """Every acknowledged version is there after each of them."""
    test_disk_kill.campaign(tmp_path / "s", runs=500, seed=2)


def test_five_hundred_kills_of_a_manager(tmp_path: Path) -> None:
    """The same with values that move between four tiers meanwhile."""
    campaign = test_manager_kill.campaign
    campaign(tmp_path / "s", runs=int(os.environ.get("TORTURE_KILLS", "500")), seed=2)


def test_churn_keeps_its_bounds(tmp_path: Path) -> None:
    """An hour of random overwrites and removals with the real sizes: space, RAM and open files.

    TORTURE_CHURN_SECONDS shortens it; TORTURE_CHURN_PAUSE_SECONDS slows it down.
    """
    seconds = float(os.environ.get("TORTURE_CHURN_SECONDS", "3600"))
    pause = float(os.environ.get("TORTURE_CHURN_PAUSE_SECONDS", "0"))
    chance, version, rounds = random.Random(1), 0, list[Round]()
    started = time.monotonic()
    with DiskBackend(tmp_path / "s") as backend:
        while time.monotonic() - started < seconds:
            worst, end = 0, time.monotonic() + max(5.0, seconds / 24 - 15)
            while time.monotonic() < end:
                version += 1
                churn(backend, chance, version)
                usage = backend.usage()
                worst = max(worst, usage.physical - 2 * usage.live)
                time.sleep(pause)
            time.sleep(10)
            rounds.append(Round.of(backend, version, worst, time.monotonic() - started))
            print(rounds[-1], flush=True)
            assert worst < 256 << 20
            assert rounds[-1].physical < 1.3 * rounds[-1].live + (256 << 20)
            assert [] == backend.check()
    assert len(rounds) > 2
    steady = rounds[len(rounds) // 4]
    assert max(each.files for each in rounds) <= steady.files + 40
    assert rounds[-1].resident < 1.1 * steady.resident + (16 << 20)


class Round(NamedTuple):
    """What was there after ten quiet seconds."""

    seconds: int
    version: int
    live: int
    physical: int
    worst: int  # The most that lay on the disk during the churn, less twice the live bytes.
    resident: int
    files: int

    @classmethod
    def of(cls, backend: DiskBackend, version: int, worst: int, seconds: float) -> Round:
        usage = backend.usage()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident, files = pages * resource.getpagesize(), len(list(Path("/proc/self/fd").iterdir()))
        return cls(int(seconds), version, usage.live, usage.physical, worst, resident, files)


def churn(backend: DiskBackend, chance: random.Random, version: int) -> None:
    key = f"k{chance.randrange(20_000)}"
    if chance.random() < 0.3:
        backend.remove(key, version)
        return
    size = chance.choice([100, 1000, 1000, 10_000, 100_000])
    if chance.random() < 0.004:
        size = chance.choice([2, 8, 30]) << 20
    backend.write(record_for(key, version), frame_for(bytes(size)))


@pytest.fixture(params=["ext4", "xfs"])
def image(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Path, Path]]:
    """Make a file system in a file; skip where that cannot be done."""
    disk, mount = mounted(tmp_path, request.param)
    yield disk, mount
    unmount(mount)


@pytest.mark.parametrize("run", range(10))
def test_a_real_power_cut(image: tuple[Path, Path], run: int) -> None:
    """The file system is shut down without flushing its log; a second of history may be lost."""
    disk, mount = image
    child = subprocess.Popen(
        [sys.executable, disk_writer.__file__, str(mount / "s"), str(run)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(100 + 40 * run)]
    descriptor = os.open(mount, os.O_RDONLY)
    fcntl.ioctl(descriptor, SHUTDOWN, WITHOUT_FLUSHING.to_bytes(4, sys.byteorder))
    os.close(descriptor)
    os.kill(child.pid, signal.SIGKILL)
    lines += child.stdout.read().splitlines(keepends=True)
    child.stdout.close()
    child.wait()
    subprocess.run(["umount", str(mount)], check=True)
    subprocess.run(["mount", "-o", "loop", str(disk), str(mount)], check=True)
    history = [line.decode().split() for line in lines if line.endswith(b"\n")]
    with DiskBackend(mount / "s") as backend:
        found = {record.key: record.version for record in backend.scan()}
        assert found in prefixes(history)
        for record in backend.scan():
            data = bytes(backend.read(record))
            assert disk_writer.content(record.version, len(data)) == data


def prefixes(history: list[list[str]]) -> list[dict[str, int]]:
    """Return every state the store was in; "?" lines are what it was asked to do, in order."""
    states: list[dict[str, int]] = [{}]
    for mark, key, version, size in history:
        if mark == "?":
            state = dict(states[-1])
            state.pop(key, None)
            if size != "-1":
                state[key] = int(version)
            states.append(state)
    return states
