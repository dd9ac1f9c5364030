"""Many values at once: what a loop of writes does, with one append for all of the small ones."""

from __future__ import annotations

import errno
import random
from pathlib import Path
from typing import Any

import pytest
from tests.support.disk_stores import without_maintenance
from tests.unit.backends.disk.test_appender import assert_agree, failing_once

from memories.backends.disk import DiskBackend
from memories.backends.disk.batch_write import BATCH_KEYS
from memories.backends.disk.files import Files
from memories.backends.disk.writer import Writer
from memories.errors import StorageError, TierFullError
from memories.model.record import Record, Terms
from memories.testing.backends import frame_for, record_for
from memories.testing.faults import FailingFiles

Items = list[tuple[Record, list[memoryview]]]


class CountedFiles(Files):
    """The operating system, with its writes counted."""

    writes = 0

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        self.writes += 1
        return super().write(descriptor, data)


def writer_of(backend: DiskBackend) -> Writer:
    assert backend._writer is not None
    return backend._writer


def items_of(count: int, since: int = 1, size: int = 500) -> Items:
    return [
        (record_for(f"k{n}", since + n, size=size), frame_for(bytes([n % 251]) * size, pieces=2))
        for n in range(count)
    ]


def random_items(chance: random.Random, version: int) -> tuple[Items, list[tuple[str, int]]]:
    """Return values to write, large and repeated ones among them, and keys to remove."""
    items, gone = Items(), list[tuple[str, int]]()
    for _ in range(chance.randrange(40)):
        version += 1
        size = chance.choice([1, 64, 700, 5000, 60_000, 1_100_000])
        terms = Terms(expires_at=2e9 + version) if chance.random() < 0.2 else Terms()
        key, data = f"k{chance.randrange(60)}", chance.randbytes(size)
        late = chance.randrange(50) if chance.random() < 0.1 else 0  # An older version.
        items.append((record_for(key, max(1, version - late), terms=terms), frame_for(data)))
    for _ in range(chance.randrange(10)):
        version += 1
        gone.append((f"k{chance.randrange(70)}", version))
    return items, gone


@pytest.mark.parametrize("durability", ["relaxed", "full"])
def test_a_batch_does_what_a_loop_does(tmp_path: Path, durability: Any) -> None:
    """Keys, values, terms, figures: all of it is the same, and the same after a reopen."""
    chance = random.Random(3)
    one = without_maintenance(DiskBackend(tmp_path / "one", durability=durability))
    many = without_maintenance(DiskBackend(tmp_path / "many", durability=durability))
    for turn in range(30 if durability == "relaxed" else 10):  # With a sync for each value.
        items, gone = random_items(chance, 1000 * turn)
        returned = [one.write(record, frame) for record, frame in items]
        stored = many.write_many(items)
        assert [(r.key, r.version, r.stored) for r in returned] == [
            (r.key, r.version, r.stored) for r in stored
        ]
        for key, version in gone:
            one.remove(key, version)
        assert len(gone) == many.remove_many(gone)
        assert contents(one) == contents(many)
        assert one.soonest() == many.soonest()
        assert_agree(writer_of(many))
        for figure in ("keys", "live", "log_live", "value_live", "last_version"):
            assert getattr(writer_of(one).accounting, figure) == getattr(
                writer_of(many).accounting, figure
            )
        assert writer_of(one).space.recent_heads == writer_of(many).space.recent_heads
        if turn % 7 == 6:
            writer_of(one).checkpoint()
            writer_of(many).checkpoint()
    held = contents(many)
    one.close()
    many.close()
    with DiskBackend(tmp_path / "many") as again:
        assert held == contents(again)
        assert [] == again.check()


def contents(backend: DiskBackend) -> dict[str, tuple[int, Terms, bytes]]:
    return {r.key: (r.version, r.terms, bytes(backend.read(r))) for r in backend.scan()}


def test_small_values_take_one_append(tmp_path: Path) -> None:
    """A thousand of them, where a loop takes a thousand; and as many removals one more."""
    files = CountedFiles()
    with without_maintenance(DiskBackend(tmp_path / "s", files=files)) as backend:
        backend.write(record_for("first", 1), frame_for(b"value"))
        files.writes = 0
        assert BATCH_KEYS == len(backend.write_many(items_of(BATCH_KEYS, since=2)))
        assert files.writes == 1
        assert BATCH_KEYS == backend.remove_many([(f"k{n}", 5000 + n) for n in range(BATCH_KEYS)])
        assert files.writes == 2
        assert 1 == backend.usage().keys
        assert [] == backend.write_many([])
        assert 0 == backend.remove_many([])


@pytest.mark.parametrize("durability", ["relaxed", "full"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_what_was_written_before_the_disk_refused_stays(
    tmp_path: Path, durability: Any, code: int
) -> None:
    """The first half is stored and reported so; the others have their old values, or none."""
    files = FailingFiles(code=code, torn=True, kinds=frozenset(["write", "writev"]))
    backend = without_maintenance(DiskBackend(tmp_path / "s", durability=durability, files=files))
    backend.write_many(items_of(30))
    held = contents(backend)
    items = items_of(100, since=1000)
    files.arm(1)
    stored = backend.write_many(items)
    assert 40 < len(stored) < 60
    assert [record.key for record, _ in items[: len(stored)]] == [r.key for r in stored]
    expected = held | {
        record.key: (record.version, record.terms, b"".join(frame))
        for record, frame in items[: len(stored)]
    }
    assert expected == contents(backend)
    assert_agree(writer_of(backend))
    files.arm(1, count=100)
    with pytest.raises(StorageError) as caught:
        backend.write_many(items[len(stored) :])
    assert code == caught.value.errno
    files.arm(2, count=100)  # The first one begins a segment.
    gone = backend.remove_many([(r.key, 3000 + n) for n, r in enumerate(stored)])
    files.arm(0)
    assert 20 < gone < 30
    for record in stored[:gone]:
        del expected[record.key]
    assert expected == contents(backend)
    backend.close()
    with DiskBackend(tmp_path / "s") as again:
        assert expected == contents(again)
        assert [] == again.check()


def test_a_batch_whose_sync_failed_was_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With full durability every key has its old value then, or none."""
    backend = without_maintenance(DiskBackend(tmp_path / "s", durability="full"))
    backend.write_many(items_of(10))
    held = contents(backend)
    failing = failing_once(backend._files.sync, OSError(errno.EIO, "it failed"))
    monkeypatch.setattr(backend._files, "sync", failing)
    with pytest.raises(StorageError):
        backend.write_many(items_of(20, since=100))
    assert held == contents(backend)
    assert 20 == len(backend.write_many(items_of(20, since=200)))
    held = contents(backend)
    backend.close()
    with DiskBackend(tmp_path / "s") as again:
        assert held == contents(again)


@pytest.mark.parametrize("step", ["put_all", "replace_all", "_leave", "extend_segment"])
def test_an_interrupted_batch_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """All of it was appended, so all of it counts, as after a kill."""
    with without_maintenance(DiskBackend(tmp_path / "s")) as backend:
        backend.write_many(items_of(10))
        writer = writer_of(backend)
        owner = writer.index if step == "put_all" else writer.accounting
        interrupted = failing_once(getattr(owner, step), KeyboardInterrupt())
        monkeypatch.setattr(type(owner), step, lambda _, *args: interrupted(*args))
        with pytest.raises(KeyboardInterrupt):
            backend.write_many(items_of(20, since=100))
        monkeypatch.undo()
        assert {f"k{n}": 100 + n for n in range(20)} == {r.key: r.version for r in backend.scan()}
        assert_agree(writer)


def test_a_full_store_takes_the_first_values(tmp_path: Path) -> None:
    """The capacity holds for a batch; the values that fit are stored."""
    with without_maintenance(DiskBackend(tmp_path / "s", capacity_bytes=4_000_000)) as backend:
        items = items_of(3000, size=3000)
        stored = backend.write_many(items)
        assert 500 < len(stored) < 1334
        assert len(stored) == backend.usage().keys
        assert backend.usage().physical <= 4_000_000
        with pytest.raises(TierFullError):
            backend.write_many(items[len(stored) :])
        assert len(stored) == backend.remove_many([(r.key, 9000) for r in stored])
        assert 0 == backend.usage().keys
