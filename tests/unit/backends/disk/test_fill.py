"""A full store holds nearly as much as it may, and its files never take more than that."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.disk_stores import on_disk
from tests.support.waiting import until

from memories.backends.disk import DiskBackend
from memories.backends.disk.size_limits import blocks
from memories.backends.disk.space_accounting import SpaceAccounting
from memories.testing.backends import frame_for, record_for

NOISE = os.urandom(1 << 20)


class Churn:
    """Stores values in a full store and removes others; it checks the disk at each 16th."""

    def __init__(self, backend: DiskBackend, path: Path, capacity: int, seed: int) -> None:
        self.chance = random.Random(seed)
        self.keys: list[str] = []
        self.version = 0
        self.stored = 0
        self.least = 1.0  # Of the capacity, by the frames, since it was first full.
        self.was_full = False
        self._backend, self._path, self._capacity = backend, path, capacity

    def store(self, size: int, *, oldest: bool) -> None:
        self.version += 1
        frame = frame_for(NOISE[:size])
        needed = blocks(sum(map(len, frame))) + 4096
        if self._backend.room() < needed:
            self.let_files_go()
        while self.keys and self._backend.room() < needed:
            self.was_full = True
            self._remove(0 if oldest else self.chance.randrange(len(self.keys)))
        key = f"key {self.version}"
        self._backend.write(record_for(key, self.version), frame)
        self.keys.append(key)
        self.stored += size
        if self.version % 16 == 0:
            assert on_disk(self._path) <= self._capacity
            if self.was_full:
                self.least = min(self.least, self._backend.usage().live / self._capacity)

    def let_files_go(self) -> None:
        """Wait until files that are not needed are gone, so that the load does not decide."""
        writer = self._backend._writer
        assert writer is not None
        until(lambda: not writer.space._obsolete.held())

    def _remove(self, at: int) -> None:
        self._backend.remove(self.keys.pop(at), self.version)
        self.version += 1


@pytest.mark.parametrize("oldest", [True, False])
def test_a_store_of_100_mb_is_nine_tenths_full(tmp_path: Path, oldest: bool) -> None:
    """By the values alone; small segments and files of their own are there side by side."""
    capacity = 100_000_000
    with DiskBackend(tmp_path / "s", capacity_bytes=capacity) as backend:
        churn = Churn(backend, tmp_path / "s", capacity, seed=1)
        while churn.stored < 1.4 * capacity:
            churn.store(churn.chance.choice([40_000, 90_000, 200_000, 700_000]), oldest=oldest)
        assert churn.was_full
        assert churn.least >= 0.9
        assert backend._maintenance is not None
        backend._maintenance.stop()  # Else a file could go between the two figures.
        churn.let_files_go()
        assert backend.usage().physical <= on_disk(tmp_path / "s") <= capacity


@given(
    capacity=st.sampled_from([2_000_000, 6_000_000, 20_000_000]),
    sizes=st.lists(st.sampled_from([1, 100, 1000, 5000, 30_000, 90_000]), min_size=1, max_size=4),
    oldest=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_mixture_of_sizes_overfills_the_disk(
    tmp_path_factory: pytest.TempPathFactory,
    capacity: int,
    sizes: list[int],
    oldest: bool,
    seed: int,
) -> None:
    """And what `room` says fits is never refused, though all of it must be compacted first."""
    path = tmp_path_factory.mktemp("s")
    with DiskBackend(path, capacity_bytes=capacity) as backend:
        churn = Churn(backend, path, capacity, seed)
        while churn.stored < 2 * capacity and churn.version < 6000:
            churn.store(churn.chance.choice(sizes), oldest=oldest)
        backend.sync()
        assert [] == backend.check()
        assert len(churn.keys) == backend.usage().keys
        assert backend._writer is not None
        assert backend._maintenance is not None
        backend._maintenance.stop()
        counted: SpaceAccounting = backend._writer.accounting
        again = backend._writer._rebuild()[1]
        figures = ("live", "keys", "log_bytes", "log_slack", "log_live", "value_live")
        assert [getattr(again, one) for one in figures] == [
            getattr(counted, one) for one in figures
        ]
        assert again.tombstones >= counted.tombstones  # A merge has left some out.


def test_a_large_value_is_counted_by_blocks(tmp_path: Path) -> None:
    """One byte above a block takes another one."""
    with DiskBackend(tmp_path / "s", capacity_bytes=1_000_000) as backend:
        before = backend.charged()
        backend.write(record_for("k", 1), [memoryview(NOISE[:40_961])])
        taken = backend.charged() - before
        assert 45_056 <= taken < 45_056 + 2 * 4096
        backend.remove("k", 2)
        backend.sync()
        assert backend._writer is not None
        assert 0 == backend._writer.accounting.value_bytes
