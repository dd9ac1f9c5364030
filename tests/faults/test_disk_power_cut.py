"""After a power cut a store is a prefix of its history, and never lacks what was synced."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from memories.backends.disk import DiskBackend, compaction, size_limits
from memories.model.record import Record
from memories.testing.backends import frame_for, record_for
from memories.testing.faults import FailingFiles, PoweredFiles

LARGE = 40_000  # Every kind of file comes up without writing gigabytes.
State = dict[str, tuple[int, int, int]]  # Key to version, first byte and length.


def verify(record: Record, frame: memoryview) -> None:
    """Stand in for the checksums inside a frame: every byte is the same, and none is zero."""
    if frame[0] == 0 or bytes(frame).count(frame[0]) != len(frame):
        raise ValueError(f"{record.key!r} is torn")


def state(backend: DiskBackend) -> State:
    found = {}
    for record in backend.scan():
        frame = backend.read(record)
        verify(record, frame)
        found[record.key] = (record.version, frame[0], len(frame))
    return found


class BusyFiles(PoweredFiles):
    """Commits from another thread while a sync is running."""

    meanwhile: Callable[[], None] | None = None

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()


class Machine:
    """Does random things to a store, and knows what may be left of them."""

    def __init__(
        self, backend: DiskBackend, files: BusyFiles, chance: random.Random, *, full: bool
    ) -> None:
        assert backend._maintenance is not None
        backend._maintenance.stop()
        self.backend, self.files, self.chance, self.full = backend, files, chance, full
        self.history: list[State] = [{}]
        self.synced = 0
        self.version = 0

    def step(self, within: float = 1.0) -> None:
        key = f"k{self.chance.randrange(12)}"
        kind = within * self.chance.random()
        state = dict(self.history[-1])
        self.version += 1
        if kind < 0.4:
            size = self.chance.choice([1, 700, 5000, 30_000, 30_000, LARGE, LARGE + 77])
            byte = self.version % 255 + 1
            self.backend.write(record_for(key, self.version), frame_for(bytes([byte]) * size))
            state[key] = (self.version, byte, size)
        elif kind < 0.55:
            self.write_batch()
            return
        elif kind < 0.7:
            self.backend.remove(key, self.version)
            state.pop(key, None)
        elif kind < 0.75:
            self.remove_batch()
            return
        elif kind < 0.85:
            before = len(self.history) - 1
            if not self.full:  # There every commit is a sync, and two of them wait for each other.
                self.files.meanwhile = lambda: [self.step(0.75) for _ in range(3)] and None
            self.backend.sync()
            self.files.meanwhile = None
            self.synced = max(self.synced, before)
            return
        else:
            assert self.backend._writer is not None
            if kind < 0.93:
                self.backend._writer.checkpoint()
                self.synced = len(self.history) - 1
            compaction.run_upkeep(self.backend._writer, lambda: None)
            return
        self.history.append(state)
        if self.full:
            self.synced = len(self.history) - 1

    def write_batch(self) -> None:
        """Store many values at once; every prefix of them is a state that may be left."""
        items = []
        for _ in range(self.chance.randrange(1, 30)):
            key, size = f"k{self.chance.randrange(20)}", self.chance.choice([1, 64, 700, 5000])
            if self.chance.random() < 0.05:
                size = LARGE + 5
            byte = self.version % 255 + 1
            items.append((record_for(key, self.version), frame_for(bytes([byte]) * size)))
            self.history.append({**self.history[-1], key: (self.version, byte, size)})
            self.version += 1
        assert len(items) == len(self.backend.write_many(items))
        if self.full:
            self.synced = len(self.history) - 1

    def remove_batch(self) -> None:
        """Remove many keys at once."""
        items = []
        for _ in range(self.chance.randrange(1, 10)):
            key = f"k{self.chance.randrange(20)}"
            items.append((key, self.version))
            state = dict(self.history[-1])
            state.pop(key, None)
            self.history.append(state)
            self.version += 1
        assert len(items) == self.backend.remove_many(items)
        if self.full:
            self.synced = len(self.history) - 1


@pytest.mark.parametrize("durability", ["relaxed", "full"])
def test_what_is_left_is_a_prefix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: str
) -> None:
    """Random histories, cut at random moments, each survived in several ways."""
    campaign(tmp_path, monkeypatch, durability, range(20))


def campaign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: str, seeds: Iterable[int]
) -> None:
    monkeypatch.setattr(size_limits, "LARGE_BYTES", LARGE)
    monkeypatch.setattr(size_limits, "SEGMENT_BYTES", 100_000)
    monkeypatch.setattr(size_limits, "SLACK_BYTES", 20_000)
    monkeypatch.setattr(compaction, "RECENT_ROWS", 10)
    lost = 0
    for seed in seeds:
        chance = random.Random(seed)
        root = tmp_path / f"{seed}"
        files = BusyFiles(root, tmp_path / f"{seed}.obsolete")
        backend = DiskBackend(root, durability=durability, files=files)
        machine = Machine(backend, files, chance, full=durability == "full")
        for cut in range(4):
            for _ in range(chance.randrange(5, 40)):
                machine.step()
            target = tmp_path / f"{seed}.{cut}"
            files.cut(target, chance)
            with DiskBackend(target, verify=verify, files=FailingFiles()) as survivor:
                found = state(survivor)
                allowed = machine.history[machine.synced :]
                assert found in allowed, (seed, cut, found, machine.synced)
                lost += found != machine.history[-1]
                survivor.write(record_for("later", 10**6), frame_for(b"\1"))
            with DiskBackend(target, files=FailingFiles()) as again:
                assert {**found, "later": (10**6, 1, 1)} == state(again)
            shutil.rmtree(target)
        backend.close()
    assert (lost == 0) == (durability == "full")
