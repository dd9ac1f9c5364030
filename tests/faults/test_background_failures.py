"""A failure at any line of what runs in the background: the next turn makes it good.

Each chore is run once to see the lines of ours that it executes, and then again and again, with a
failure at one line after another, as a thread meets one that has no memory left. `make test` takes
a sample of the lines, `make torture` all.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.interrupting import Interrupter, places
from tests.support.values import identical

from memories import MemoryManager
from memories.backends.bucket import BucketBackend, BucketLimits
from memories.backends.disk import DiskBackend, compaction, size_limits
from memories.backends.disk.writer import Writer
from memories.testing.backends import frame_for, record_for

SAMPLE = 31  # In `make test` every so many lines.
ERRORS = [MemoryError, KeyboardInterrupt, SystemExit]


class Failing:
    """Lets a chore fail at one line after another, and looks after each whether all is well."""

    def __init__(self, error: type[BaseException], every: int) -> None:
        self.interrupter = Interrupter(error)
        self.every = every

    def at_each_line(
        self,
        prepare: Callable[[], object],
        chore: Callable[[], object],
        check: Callable[[], object],
    ) -> None:
        prepare()
        self.interrupter.run(chore)
        lines = places(self.interrupter.trail)
        struck = 0
        for line in lines[len(lines) % self.every :: self.every]:
            prepare()
            try:
                struck += self.interrupter.run(chore, line)
                chore()
                check()
            except BaseException as fault:
                fault.add_note(f"after line {line}: {self.interrupter.struck}")
                raise
        assert struck or self.every > 1, "it never failed"


@pytest.fixture(
    params=[
        pytest.param((MemoryError, SAMPLE), id="some lines"),
        *(
            pytest.param(
                (error, 1), id=f"{error.__name__} at every line", marks=pytest.mark.torture
            )
            for error in ERRORS
        ),
    ]
)
def failing(request: pytest.FixtureRequest) -> Failing:
    return Failing(*request.param)


class Churned:
    """A store that is written without its threads, and what it must hold."""

    def __init__(self, path: Path) -> None:
        self.path, self.chance = path, random.Random(5)
        self.held: dict[str, bytes] = {}
        self.version = 0
        self.checked = 0
        self.backend = self.open()

    def open(self) -> DiskBackend:
        backend = DiskBackend(self.path)
        assert backend._maintenance is not None
        for thread in backend._maintenance.threads:
            thread.stop()
        return backend

    @property
    def writer(self) -> Writer:
        assert self.backend._writer is not None
        return self.backend._writer

    def churn(self) -> None:
        for _ in range(60):
            self.version += 1
            key = f"k{self.chance.randrange(40)}"
            if self.chance.random() < 0.3:
                self.backend.remove(key, self.version)
                self.held.pop(key, None)
            else:
                self.held[key] = os.urandom(self.chance.choice([10, 900, 4000, 31_000]))
                frame = frame_for(self.held[key])
                self.backend.write(record_for(key, self.version), frame)

    def check(self) -> None:
        found = {record.key: bytes(self.backend.read(record)) for record in self.backend.scan()}
        assert self.held == found
        self.checked += 1
        if self.checked % 10 == 0:
            assert [] == self.backend.check()
            self.backend.close()
            self.backend = self.open()
            found = {record.key: bytes(self.backend.read(record)) for record in self.backend.scan()}
            assert self.held == found


@pytest.fixture
def churned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Churned]:
    for name, size in (
        ("RESERVE", 1000),
        ("SEGMENT", 20_000),
        ("SLACK", 60_000),
        ("LARGE", 30_000),
    ):
        monkeypatch.setattr(size_limits, f"{name}_BYTES", size)
    monkeypatch.setattr(compaction, "RECENT_ROWS", 100)
    made = Churned(tmp_path / "store")
    yield made
    made.backend.close()


CHORES: dict[str, Callable[[Writer], object]] = {
    "sync": Writer.sync,
    "upkeep": lambda writer: compaction.run_upkeep(writer, lambda: None),
    "upkeep when quiet": lambda writer: compaction.run_upkeep(writer, lambda: None, quiet=True),
    "unlink": lambda writer: (writer.sync(), writer.unlink_obsolete()),
    "checkpoint": Writer.checkpoint,
}


@pytest.mark.parametrize("name", CHORES)
def test_the_upkeep_of_a_store(failing: Failing, churned: Churned, name: str) -> None:
    """Everything stored is readable, and a reopening agrees."""
    failing.at_each_line(churned.churn, lambda: CHORES[name](churned.writer), churned.check)


class Tiers:
    """A manager whose threads stand still, and what it must hold."""

    def __init__(self, folder: Path) -> None:
        self.held: dict[str, Any] = {}
        self.number = 0
        self.manager = MemoryManager(
            "60 kB", "90 kB", "20 MB", storage_path=folder / "store", glacier_memory_enabled=True,
            glacier_url=str(folder / "bucket"), prefetch="auto",
        )  # fmt: skip
        services = self.manager._services
        assert services.migrator is not None and services.prefetching is not None
        self.migrator, self.prefetching = services.migrator, services.prefetching
        self.migrator.stop()
        self.prefetching.stop()
        self.prefetching._ended._set = False
        services.telemetry._thread.stop()

    def store(self) -> None:
        """Store what a look has something to do with, in each tier."""
        self.number += 1
        for tier in ("hot", "warm", "cold", "glacier"):
            key = f"{tier}{self.number % 7}"
            self.held[key] = np.arange(self.number % 1500)
            self.manager.store(key, self.held[key], tier)
            self.manager.retrieve(key)
        self.manager.store("timed", 1, "warm", ttl=1e-3)
        self.manager.store("timed at rest", 1, "cold", ttl=1e-3)
        self.migrator._paused_until = 0.0
        for entry in self.manager._hierarchy.catalog.entries.values():
            entry.stamp = 0
        self.manager.prefetch([f"cold{self.number % 7}", f"glacier{self.number % 7}"])
        time.sleep(2e-3)

    def check(self) -> None:
        for key, value in self.held.items():
            assert identical(value, self.manager.retrieve(key)), key
        assert sorted(self.held) == sorted(self.manager)
        for name, tier in self.manager._hierarchy.tiers.items():
            assert tier.budget.used <= tier.budget.effective, name


@pytest.fixture
def tiers(tmp_path: Path) -> Iterator[Tiers]:
    made = Tiers(tmp_path)
    yield made
    made.manager.cleanup()


def test_migration(failing: Failing, tiers: Tiers) -> None:
    """What was on its way is where it was, or where it was going to."""
    failing.at_each_line(tiers.store, tiers.migrator._turn, tiers.check)


def test_fetching_ahead(failing: Failing, tiers: Tiers) -> None:
    """A guess that failed costs nothing but itself."""
    failing.at_each_line(tiers.store, tiers.prefetching._work, tiers.check)


def test_telemetry(failing: Failing, tiers: Tiers) -> None:
    """No observer may get wrong figures, and no store may suffer from it."""
    keep = tiers.manager._services.telemetry._refresh_files
    failing.at_each_line(tiers.store, keep, tiers.check)
    assert [] == list((tiers.manager._services.telemetry._directory or Path()).glob("*.partial"))


class Archive:
    """An archive whose chores are run by hand, and what it must hold."""

    def __init__(self, folder: Path) -> None:
        self.held: dict[str, bytes] = {}
        self.version = 0
        self.folder = folder
        self.backend = self.open()

    def open(self) -> BucketBackend:
        backend = BucketBackend(
            str(self.folder / "bucket"), directory=self.folder / "local",
            limits=BucketLimits(
                small_bytes=1000, pack_bytes=8000, flush_seconds=1e6, grace_seconds=0.0
            ),
        )  # fmt: skip
        for thread in backend._maintenance._threads:
            thread.stop()
        return backend

    def store(self) -> None:
        for _ in range(6):
            self.version += 1
            key = f"k{self.version % 11}"
            if self.version % 5 == 0:
                self.backend.remove(key, self.version)
                self.held.pop(key, None)
            else:
                self.held[key] = os.urandom(500 if self.version % 7 else 2000)
                record = record_for(key, self.version)
                self.backend.write(record, frame_for(self.held[key]))

    def keep(self) -> None:
        self.backend._session.lease.renew()
        self.backend.sync()
        self.backend.maintain()
        self.backend.reclaim(0.0)

    def check(self) -> None:
        found = {one.key: bytes(self.backend.read(one)) for one in self.backend.scan()}
        assert self.held == found


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    made = Archive(tmp_path)
    yield made
    made.backend.close()


def test_the_keeping_of_an_archive(failing: Failing, archive: Archive) -> None:
    """Everything archived is readable, and another machine finds the same."""
    failing.at_each_line(archive.store, archive.keep, archive.check)
    archive.backend.close()
    archive.backend = archive.open()
    archive.check()
    assert [] == archive.backend.check()
