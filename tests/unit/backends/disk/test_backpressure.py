"""The bytes on the disk never exceed the capacity, and what is charged follows what is stored."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.support.disk_stores import on_disk

from memories import MemoryManager
from memories.backends.disk import DiskBackend, size_limits
from memories.backends.disk.files import Files
from memories.errors import TierFullError
from memories.testing.backends import frame_for, record_for

CAPACITY = 8_000_000


class CountingFiles(Files):
    """The operating system; counts the syncs."""

    def __init__(self) -> None:
        self.syncs = 0

    def sync(self, descriptor: int) -> None:
        self.syncs += 1
        super().sync(descriptor)


class Watch:
    """Samples the bytes on the disk as fast as it can, and remembers the most it saw."""

    def __init__(self, path: Path) -> None:
        self.most, self.samples = 0, 0
        self._path, self._stop = path, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(0.002):
            self.most, self.samples = max(self.most, on_disk(self._path)), self.samples + 1

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def sizes(chance: random.Random) -> Iterator[int]:
    while True:
        yield chance.choice([30, 300, 1000, 1000, 9000, 60_000, 200_000])


@pytest.mark.parametrize("removed", [0.0, 0.3])
def test_churn_in_a_full_store_stays_within_its_capacity(tmp_path: Path, removed: float) -> None:
    """At every moment, upkeep's own copies included, with as much live as may be charged."""
    chance, version, refused = random.Random(1), 0, 0
    path = tmp_path / "s"
    with DiskBackend(path, capacity_bytes=CAPACITY) as backend, Watch(path) as watch:
        for size in sizes(chance):
            version += 1
            if version > 3000:
                break
            key = f"k{chance.randrange(400)}"
            if chance.random() < removed:
                backend.remove(key, version)
            elif size > backend.room():
                refused += 1
                backend.remove(key, version)
            else:
                backend.write(record_for(key, version), frame_for(os.urandom(size)))
        assert [] == backend.check()
        assert backend.usage().physical <= CAPACITY
    assert watch.most <= CAPACITY
    assert watch.most > 0.8 * CAPACITY, "the store was never full"
    assert refused > 100 or removed
    assert watch.samples > 20


def test_threads_share_one_capacity(tmp_path: Path) -> None:
    """Each of them waits for upkeep in its own turn; none overdraws what another was granted."""
    path, versions, lock = tmp_path / "s", iter(range(1, 10**6)), threading.Lock()
    failures: list[BaseException] = []
    with DiskBackend(path, capacity_bytes=CAPACITY) as backend, Watch(path) as watch:

        def work(name: int) -> None:
            chance = random.Random(name)
            try:
                for size, _ in zip(sizes(chance), range(500), strict=False):
                    with lock:
                        version = next(versions)
                    key = f"{name}/{chance.randrange(30)}"
                    if size > backend.room() - 1_000_000:
                        backend.remove(key, version)
                    else:
                        backend.write(record_for(key, version), frame_for(os.urandom(size)))
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [] == failures
    assert watch.most <= CAPACITY


def test_what_is_charged_falls_with_what_is_removed(tmp_path: Path) -> None:
    """Otherwise an eviction would go on, waiting for a figure that lags behind."""
    with DiskBackend(tmp_path / "s", capacity_bytes=CAPACITY) as backend:
        for version in range(1, 101):
            backend.write(record_for(f"k{version}", version), frame_for(bytes(10_000)))
        full = backend.charged()
        assert 1_000_000 < full < 1_400_000
        for version in range(101, 201):
            backend.remove(f"k{version - 100}", version)
        assert backend.charged() < 0.1 * full
        assert 0 < backend.room() < CAPACITY


def test_a_view_that_keeps_dead_bytes_is_named_when_they_take_the_room(tmp_path: Path) -> None:
    """An open view keeps every file; the store says so instead of overdrawing, and recovers."""
    path = tmp_path / "s"
    with DiskBackend(path, capacity_bytes=CAPACITY) as backend:
        version = 0
        with backend.view() as view, pytest.raises(TierFullError, match="snapshots that run"):
            while True:
                version += 1
                backend.write(record_for("k", version), frame_for(os.urandom(50_000)))
        assert 100 < version < CAPACITY / 50_000
        assert [] == list(view)
        assert on_disk(path) <= CAPACITY
        for later in range(version, version + 300):
            backend.write(record_for("k", later), frame_for(os.urandom(50_000)))
        assert on_disk(path) <= CAPACITY


def test_a_writer_that_outruns_upkeep_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dead bytes are bounded during churn too, whatever the background gets done."""
    monkeypatch.setattr(size_limits, "SEGMENT_BYTES", 200_000)
    monkeypatch.setattr("memories.backends.disk.space.CHURN_BYTES", 1_000_000)
    with DiskBackend(tmp_path / "s") as backend:
        assert backend._maintenance is not None
        backend._maintenance.stop()
        for version in range(1, 2000):
            backend.write(record_for(f"k{version % 40}", version), frame_for(bytes(5_000)))
            usage = backend.usage()
            assert usage.physical <= 2 * usage.live + 1_000_000 + 2 * 200_000


@pytest.mark.parametrize(("capacity", "size"), [(500_000, 10_000), (1_000_000, 15_000)])
def test_a_small_store_that_holds_its_reserve_goes_on(
    tmp_path: Path, capacity: int, size: int
) -> None:
    """The reserve for a full disk is in the way of copies; each store then sealed three segments.

    None of these could be emptied, so the files grew beyond the capacity, and each store took
    longer than the one before.
    """
    path, files = tmp_path / "s", CountingFiles()
    with DiskBackend(path, capacity_bytes=capacity, files=files) as backend:
        keys: list[str] = []
        for version in range(1, 600, 2):
            while backend.room() < size + 4096:
                backend.remove(keys.pop(0), version)
            keys.append(f"k{version}")
            backend.write(record_for(keys[-1], version + 1), frame_for(os.urandom(size)))
            if version % 100 == 1:
                backend.resize(capacity)  # As when nothing was written for a while.
            if version == 401:
                syncs = files.syncs
            assert on_disk(path) <= capacity
        assert files.syncs - syncs < 100 * 12
        assert [] == backend.check()


@pytest.mark.parametrize(
    ("capacity", "size", "every", "at"), [(1_000_000, 15_000, 30, 28), (500_000, 10_000, 5, 1)]
)
def test_the_room_that_a_store_waits_for_is_used_for_copies(
    tmp_path: Path, capacity: int, size: int, every: int, at: int
) -> None:
    """A store claims its bytes before there is room for them, and then makes that room.

    Where upkeep had just written runs of the index, their merge lacked only the bytes that the
    store itself had claimed: it was refused although it would have fitted.
    """
    path = tmp_path / "s"
    with DiskBackend(path, capacity_bytes=capacity) as backend:
        writer, maintenance = backend._writer, backend._maintenance
        assert writer is not None and maintenance is not None
        maintenance.stop()
        keys: list[str] = []
        for number in range(300):
            while backend.room() < size + 4096:
                backend.remove(keys.pop(0), 2 * number + 1)
            keys.append(f"k{number}")
            backend.write(record_for(keys[-1], 2 * number + 2), frame_for(bytes(size)))
            if number % every == at:
                writer.checkpoint()  # As upkeep does.
            assert on_disk(path) <= capacity
        assert [] == backend.check()


def test_tiers_of_a_few_megabytes_do_not_thrash(tmp_path: Path) -> None:
    """A full cold tier sends down what it must, and no more; its disk is within its size."""
    generator, path = np.random.default_rng(1), tmp_path / "m"
    with (
        MemoryManager(
            "1 MB",
            "1 MB",
            CAPACITY / 10**9,
            True,
            storage_path=path,
            glacier_url=str(tmp_path / "g"),
        ) as manager,
        Watch(path / "cold") as watch,
    ):
        for number in range(600):
            key = f"k{number % 300}"
            manager.store(key, generator.integers(0, 256, 50_000, dtype="u1"), "cold")
            if number >= 150:
                usage = manager.get_memory_usage()["cold"]
                assert usage > 60.0, number
        assert 300 == len(manager)
        assert manager.stats().tiers["cold"].keys > 80  # type: ignore[index]
    assert watch.most <= CAPACITY
