"""`check(repair=True)` while others write and upkeep compacts: it finds nothing that is not so."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.waiting import until

from memories.backends.disk import DiskBackend, compaction, size_limits
from memories.testing.backends import frame_for, record_for
from memories.testing.faults import FailingFiles, flip

SECONDS = 1.0  # At least; on a busy machine until there was enough to meet.


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size_limits, "SEGMENT_BYTES", 20_000)
    monkeypatch.setattr(size_limits, "SLACK_BYTES", 1_000)
    monkeypatch.setattr(size_limits, "LARGE_BYTES", 30_000)
    monkeypatch.setattr(compaction, "RECENT_ROWS", 50)


@contextmanager
def running(*works: Callable[[], None]) -> Iterator[None]:
    """Repeat each of `works` in a thread of its own; what one raises is raised here."""
    stop, failures = threading.Event(), list[BaseException]()

    def repeat(work: Callable[[], None]) -> None:
        try:
            while not stop.is_set():
                work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=repeat, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert [] == failures


class Churn:
    """Overwrites, removes and adopts at random, and knows what must be there."""

    def __init__(self, backend: DiskBackend, directory: Path) -> None:
        self.backend, self.directory = backend, directory
        self.chance, self.version = random.Random(1), 0
        self.kept: dict[str, tuple[int, int]] = {}

    def __call__(self) -> None:
        self.version += 1
        key, kind = f"k{self.chance.randrange(60)}", self.chance.random()
        if kind < 0.2:
            self.backend.remove(key, self.version)
            self.kept.pop(key, None)
        elif kind < 0.25:
            self._adopt()
        else:
            size = self.chance.choice([10, 300, 900, 4_000, 31_000])
            self.backend.write(
                record_for(key, self.version), frame_for(bytes([self.version % 256]) * size)
            )
            self.kept[key] = (self.version % 256, size)

    def _adopt(self) -> None:
        path, fill = self.directory / f"{self.version}", self.version % 256
        path.write_bytes(bytes([fill]) * 3_000)
        keys = [f"k{number}" for number in self.chance.sample(range(60), 3)]
        items = [(record_for(key, self.version), 1_000 * at, 1_000) for at, key in enumerate(keys)]
        self.backend.adopt(path, [items])
        self.kept.update(dict.fromkeys(keys, (fill, 1_000)))
        path.unlink()

    def holds(self) -> None:
        assert sorted(self.kept) == [record.key for record in self.backend.scan()]
        for key, (fill, size) in self.kept.items():
            found = self.backend.lookup(key)
            assert found is not None
            assert bytes([fill]) * size == bytes(self.backend.read(found)), key


def opened(path: Path) -> DiskBackend:
    backend = DiskBackend(path, files=FailingFiles())
    assert backend._maintenance is not None
    backend._maintenance.stop()
    return backend


@pytest.mark.parametrize("repair", [True, False])
def test_a_healthy_store_has_no_problem_while_it_changes(tmp_path: Path, repair: bool) -> None:
    """Nothing is dropped, unlinked or reported that only moved meanwhile."""
    (tmp_path / "frames").mkdir()
    with opened(tmp_path / "s") as backend:
        writer = backend._writer
        assert writer is not None
        churn, chance = Churn(backend, tmp_path / "frames"), random.Random(2)
        checks = 0
        with running(
            churn, lambda: compaction.run_upkeep(writer, lambda: None, quiet=chance.random() < 0.2)
        ):
            end = time.monotonic() + SECONDS
            while time.monotonic() < end or checks < 5:
                assert [] == backend.check(repair=repair)
                checks += 1
            until(lambda: churn.version > 100)
        churn.holds()
    with DiskBackend(tmp_path / "s") as again:
        churn.backend = again
        churn.holds()


def test_real_damage_is_mended_beside_upkeep(tmp_path: Path) -> None:
    """Each damaged key goes once and by name; what upkeep moves at that moment stays whole."""
    with opened(tmp_path / "s") as backend:
        writer = backend._writer
        assert writer is not None
        version = 0
        for _ in range(20):
            for number in range(60):
                version += 1
                backend.write(record_for(f"k{number}", version), frame_for(os.urandom(500)))
            bodies = {r.key: bytes(backend.read(r)) for r in backend.scan()}
            record = backend.lookup(f"k{version % 60}")
            assert record is not None
            place = writer.row(record.key)
            assert place is not None
            flip(writer.paths.segment(place.segment), place.offset + place.extent // 2)
            with running(lambda: compaction.run_upkeep(writer, lambda: None)):
                problems = backend.check(repair=True)
                assert [] == backend.check(repair=True)
            lost = set(bodies) - {r.key for r in backend.scan()}
            assert lost == {problem.key for problem in problems if problem.key}
            assert lost <= {record.key}
            for found in backend.scan():
                assert bodies[found.key] == bytes(backend.read(found)), found.key


def test_a_pack_that_a_view_still_reads_is_no_orphan(tmp_path: Path) -> None:
    """A check must not unlink what an open view, a snapshot say, was promised."""
    source = tmp_path / "frames"
    source.write_bytes(b"\1" * 3_000)
    with opened(tmp_path / "s") as backend:
        backend.adopt(source, [[(record_for("k", 1), 0, 3_000)]])
        with backend.view() as view:
            (record,) = view
            backend.write(record_for("k", 2), frame_for(b"\2"))
            assert backend._writer is not None
            compaction.run_upkeep(backend._writer, lambda: None, quiet=True)
            assert [] == backend.check(repair=True)
            assert b"\1" * 3_000 == bytes(backend.read(record))
