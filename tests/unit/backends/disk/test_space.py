"""Dead bytes are given back, and the figures say what is really there."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from tests.support.waiting import until

from memories.backends.disk import DiskBackend, compaction, run_merge, size_limits
from memories.backends.disk.import_file import Adoption
from memories.foundation.call_owner import CallOwner
from memories.testing.backends import frame_for, record_for
from memories.testing.faults import FailingFiles

SLACK = 60_000


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size_limits, "RESERVE_BYTES", 1_000)
    monkeypatch.setattr(size_limits, "SEGMENT_BYTES", 20_000)
    monkeypatch.setattr(size_limits, "SLACK_BYTES", SLACK)
    monkeypatch.setattr(compaction, "RECENT_ROWS", 100)
    monkeypatch.setattr(size_limits, "LARGE_BYTES", 30_000)


def on_disk(path: Path) -> int:
    kinds = (".seg", ".val", ".pack", ".run")
    files = [path / "RESERVE", *path.rglob("*")]
    found = [file for file in files if file.suffix in kinds or file.name == "RESERVE"]
    return sum(512 * file.stat().st_blocks for file in set(found) if file.exists())


def opened(path: Path) -> DiskBackend:
    backend = DiskBackend(path, files=FailingFiles())
    assert backend._maintenance is not None
    backend._maintenance.stop()
    return backend


def run_upkeep(backend: DiskBackend) -> None:
    assert backend._writer is not None
    compaction.run_upkeep(backend._writer, lambda: None, quiet=True)
    backend.sync()


def test_two_threads_allocate_the_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Upkeep runs in the background, and in a call that waits for it."""
    with opened(tmp_path / "s") as backend:
        assert backend._writer is not None
        reserve = backend._writer.space.reserve
        reserve.delete()
        create = reserve._files.create
        other = Thread(target=reserve.allocate, args=(0, 10**12, 10**12))

        def held(path: Path) -> int:
            if other.ident is None:
                other.start()
                other.join(0.3)
            return create(path)

        monkeypatch.setattr(reserve._files, "create", held)
        reserve.allocate(0, 10**12, 10**12)
        other.join()
        assert reserve.bytes == (tmp_path / "s" / "RESERVE").stat().st_size


def test_the_reserve_is_deleted_while_it_is_allocated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that meets a full disk deletes it; what is counted is there."""
    with opened(tmp_path / "s") as backend:
        assert backend._writer is not None
        reserve = backend._writer.space.reserve
        reserve.delete()
        allocate = reserve._files.allocate
        other = Thread(target=reserve.delete)

        def held(descriptor: int, length: int) -> None:
            other.start()
            other.join(0.3)
            allocate(descriptor, length)

        monkeypatch.setattr(reserve._files, "allocate", held)
        reserve.allocate(0, 10**12, 10**12)
        other.join()
        assert 0 == reserve.bytes
        assert not (tmp_path / "s" / "RESERVE").exists()


@pytest.mark.parametrize("share_removed", [0.1, 0.45, 0.6])
def test_churn_stays_within_bounds(tmp_path: Path, share_removed: float) -> None:
    """Random overwrites and deletes; the bound of the issue, with the constants scaled down."""
    chance = random.Random(3)
    with opened(tmp_path / "s") as backend:
        for version in range(1, 6000):
            key = f"k{chance.randrange(120)}"
            if chance.random() < share_removed:
                backend.remove(key, version)
            else:
                size = chance.choice([10, 300, 900, 900, 4000, 31_000])
                backend.write(record_for(key, version), frame_for(bytes(size)))
            if version % 100 == 0:
                assert backend._writer is not None
                compaction.run_upkeep(backend._writer, lambda: None)
            if version % 1000 == 0:
                run_upkeep(backend)
                usage = backend.usage()
                assert on_disk(tmp_path / "s") == usage.physical
                assert usage.physical < 1.3 * usage.live + 3 * SLACK
        before = backend.usage()
    with opened(tmp_path / "s") as again:
        assert (before.live, before.keys) == (again.usage().live, again.usage().keys)
        assert on_disk(tmp_path / "s") == again.usage().physical


def test_removed_keys_leave_nothing_behind(tmp_path: Path) -> None:
    """Tombstones go once what they bury is gone: unique keys, stored and removed for ever."""
    with opened(tmp_path / "s") as backend:
        backend.write(record_for("old and kept", 1), frame_for(bytes(500)))
        for version in range(2, 8000, 2):
            backend.write(record_for(f"k{version}", version), frame_for(bytes(200)))
            backend.remove(f"k{version}", version + 1)
            if version % 200 == 0:
                assert backend._writer is not None
                compaction.run_upkeep(backend._writer, lambda: None)
        run_upkeep(backend)
        assert backend.usage().physical < 2 * SLACK
        assert backend._writer is not None
        assert sum(run.count for run in backend._writer.index.runs) < 600


def test_a_deleted_value_stays_dead_though_its_tombstone_is_compacted(tmp_path: Path) -> None:
    """Only a rebuild from the log shows whether a tombstone went too early."""
    chance = random.Random(5)
    held: dict[str, int] = {}
    with opened(tmp_path / "s") as backend:
        for version in range(1, 4000):
            key = f"k{chance.randrange(200)}"
            if chance.random() < 0.4:
                backend.remove(key, version)
                held.pop(key, None)
            else:
                backend.write(record_for(key, version), frame_for(bytes(chance.randrange(1, 900))))
                held[key] = version
            if version % 97 == 0:
                run_upkeep(backend)
            if version % 500 == 0:
                assert backend._writer is not None
                backend._writer.rebuild()
                found = {record.key: record.version for record in backend.scan()}
                assert held == found


def test_a_tombstone_outlives_every_copy_of_what_it_hides(tmp_path: Path) -> None:
    """A compaction was cut off after one copy: a rebuilt index must know of both segments.

    Else the tombstone goes with the copy's segment, and the first one brings the value back.
    """
    with opened(tmp_path / "s") as backend:
        backend.write(record_for("a", 1), frame_for(bytes(900)))
        for version in range(2, 30):
            backend.write(record_for(f"kept {version}", version), frame_for(bytes(900)))
        copy_one(backend, "a")
        shutil.copytree(tmp_path / "s", tmp_path / "crashed")
    shutil.rmtree(tmp_path / "crashed" / "index")
    log_files = tmp_path / "crashed" / "log"
    with opened(tmp_path / "crashed") as backend:
        copied_to = max(log_files.iterdir())
        backend.remove("a", 100)
        for version in range(101, 600):
            key = f"kept {version % 15 + 15}" if version < 150 else "other"
            backend.write(record_for(key, version), frame_for(bytes(900)))
            if version % 100 == 99:
                run_upkeep(backend)
        names = sorted(file.name for file in log_files.iterdir())
        assert names[0] == "00000001.seg"
        assert copied_to.name not in names
        assert backend._writer is not None
        backend._writer.rebuild()
        assert backend.lookup("a") is None
        assert 1 + 28 == backend.usage().keys


def copy_one(backend: DiskBackend, key: str) -> None:
    """Copy one record of the log, as compaction does, and sync; its first segment stays."""
    writer = backend._writer
    assert writer is not None
    row = writer.row(key)
    assert row is not None
    data = writer.paths.segment(row.segment).read_bytes()
    with writer.lock:
        writer.copy_records([(row, data[row.offset : row.offset + row.extent])])
    writer.sync()


def test_the_account_after_a_crash_is_that_of_the_log(tmp_path: Path) -> None:
    """Counted twice, a segment with live records looks empty and is unlinked: this lost a value.

    What tells it is a merge of runs after an opening and before the next checkpoint.
    """
    with opened(tmp_path / "s") as backend:
        for version in range(1, 53):
            backend.write(record_for(f"k{version % 26}", version), frame_for(bytes(700)))
            if version % 26 == 0:
                assert backend._writer is not None
                backend._writer.checkpoint()
    with opened(tmp_path / "s") as backend:
        for version in range(53, 73):
            backend.write(record_for(f"k{version % 26}", version), frame_for(bytes(700)))
        assert backend._writer is not None
        assert 2 == len(backend._writer.index.runs)
        run_merge.merge_runs(backend._writer, lambda: None, quiet=True)
        shutil.copytree(tmp_path / "s", tmp_path / "crashed")
    with opened(tmp_path / "crashed") as backend:
        writer = backend._writer
        assert writer is not None
        account = {number: stats.live for number, stats in writer.accounting.segments.items()}
        writer.rebuild()
        counted = {number: stats.live for number, stats in writer.accounting.segments.items()}
        assert counted == account
        assert 26 * 768 <= sum(account.values())


def test_a_merge_that_was_overtaken_is_dropped(tmp_path: Path) -> None:
    """A repair built the index again while upkeep merged its runs, which then knew no way out."""
    with DiskBackend(tmp_path / "s") as backend:
        for version in range(1, 101):
            backend.write(record_for(f"k{version}", version), frame_for(b"x" * version))
            writer = backend._writer
            assert writer is not None
            if version % 50 == 0:
                writer.checkpoint()
        group, overtaken = writer.index.runs, list[bool]()
        assert 2 == len(group)

        def overtake() -> None:
            if not overtaken:
                overtaken.append(True)
                writer.rebuild()

        run_merge.merge(writer, group, overtake, last=True)
        assert overtaken
        assert 100 == sum(1 for _ in backend.scan())
        writer.checkpoint()
        run_merge.merge_runs(writer, lambda: None, quiet=True)
        assert [] == backend.check()


def files(path: Path, suffix: str) -> set[str]:
    return {found.name for found in path.rglob(f"*{suffix}")}


def remove_and_adopt(backend: DiskBackend, path: Path, count: int) -> None:
    """Leave a segment whose tombstones bury nothing, and packs of which no record is left."""
    assert backend._writer is not None
    for version in range(1, 101, 2):
        backend.write(record_for(f"k{version}", version), frame_for(bytes(100)))
        backend.remove(f"k{version}", version + 1)
    backend._writer.checkpoint(seal=True)
    for version in range(101, 101 + count):
        file = path.with_suffix(f".{version}")
        file.write_bytes(b"".join(frame_for(bytes(500))))
        item = (record_for("adopted", version), 0, file.stat().st_size)
        backend.adopt(file, [[item]])
    assert count == len(files(path, ".pack"))
    assert "00000001.seg" in files(path, ".seg")


def test_dead_files_are_unlinked_behind_tombstones_that_hide_nothing(tmp_path: Path) -> None:
    """Such a segment is the largest of what is dead, and once kept all the others from going."""
    with opened(tmp_path / "s") as backend:
        remove_and_adopt(backend, tmp_path / "s", 9)
        run_upkeep(backend)
        assert 1 == len(files(tmp_path / "s", ".pack"))
        assert "00000001.seg" not in files(tmp_path / "s", ".seg")
        assert ["adopted"] == [record.key for record in backend.scan()]
        assert backend._writer is not None
        backend._writer.rebuild()
        assert ["adopted"] == [record.key for record in backend.scan()]
        assert [] == backend.check()


def test_a_rebuilt_account_has_packs_that_the_log_names_no_more(tmp_path: Path) -> None:
    """A pack that it lacked was left behind, and a check said that it belonged to no key."""
    with opened(tmp_path / "s") as backend:
        remove_and_adopt(backend, tmp_path / "s", 3)
        writer = backend._writer
        assert writer is not None
        writer.checkpoint(seal=True)
        with writer.upkeep_lock:
            for number in sorted(writer.accounting.segments)[:-1]:
                assert compaction._empty_segment(writer, number, lambda: None)
        before = dict(writer.accounting.packs)
        writer.rebuild()
        assert before == writer.accounting.packs
        assert [] == backend.check(repair=True, dry_run=True)
        run_upkeep(backend)
        assert 1 == len(files(tmp_path / "s", ".pack"))


def test_an_index_is_rebuilt_while_a_file_is_adopted(tmp_path: Path) -> None:
    """Thread 1 counts the pack. Thread 2 rebuilds the account from a log without its records."""
    with opened(tmp_path / "s") as backend:
        writer = backend._writer
        assert writer is not None
        file = tmp_path / "file"
        file.write_bytes(b"".join(frame_for(bytes(500))))

        def batches() -> Iterator[list[Adoption]]:
            writer.rebuild()
            yield [(record_for("adopted", 1), 0, file.stat().st_size)]

        backend.adopt(file, batches())
        assert ["adopted"] == [record.key for record in backend.scan()]
        assert [] == backend.check()


def test_a_rebuilt_account_leaves_out_what_is_obsolete(tmp_path: Path) -> None:
    """While a view is open nothing is unlinked.

    A segment that was counted again, and then unlinked, was missed by the next rebuilding, which
    said that it must be brought back. The bytes of a value file were counted twice.
    """
    with opened(tmp_path / "s") as backend:
        remove_and_adopt(backend, tmp_path / "s", 3)
        backend.write(record_for("large", 200), frame_for(bytes(40_000)))
        writer = backend._writer
        assert writer is not None
        writer.checkpoint(seal=True)
        writer.pin(view := Thread())
        backend.write(record_for("large", 201), frame_for(bytes(40_000)))
        run_upkeep(backend)
        segments, packs, values = writer.obsolete.numbers()
        assert 1 in segments
        assert packs
        assert values
        before = vars(writer.accounting).copy()
        writer.rebuild()
        assert before == vars(writer.accounting)
        writer.unpin(view)
        backend.sync()
        assert "00000001.seg" not in files(tmp_path / "s", ".seg")
        writer.rebuild()
        assert {"adopted", "large"} == {record.key for record in backend.scan()}


def test_an_opening_collects_what_an_end_left(tmp_path: Path) -> None:
    """The store may never be written again; nothing waits for a later write."""
    with opened(tmp_path / "s") as backend:
        remove_and_adopt(backend, tmp_path / "s", 3)
    with DiskBackend(tmp_path / "s") as backend:
        until(lambda: len(files(tmp_path / "s", ".pack")) <= 1)
        assert ["adopted"] == [record.key for record in backend.scan()]


def test_small_segments_are_few(tmp_path: Path) -> None:
    """Each call that gives room back at once ends a segment; what lives in it is hardly dead."""
    with opened(tmp_path / "s") as backend:
        assert backend._writer is not None
        for version in range(1, 61):
            backend.write(record_for(f"k{version}", version), frame_for(bytes(version)))
            backend._writer.checkpoint(seal=True)
        assert len(files(tmp_path / "s", ".seg")) >= 60
        run_upkeep(backend)
        assert len(files(tmp_path / "s", ".seg")) <= compaction.MAX_SMALL_FILES + 2
        backend._writer.rebuild()
        assert 60 == len(list(backend.scan()))
        assert [] == backend.check()


def test_a_segment_goes_while_the_index_is_rebuilt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Obsolete files are unlinked by a thread of their own, which waits for no rebuilding."""
    with opened(tmp_path / "s") as backend:
        writer = backend._writer
        assert writer is not None
        writer.pin(view := Thread())
        for version in range(1, 61):
            backend.write(record_for(f"k{version}", version), frame_for(bytes(version)))
            writer.checkpoint(seal=True)
        run_upkeep(backend)
        obsolete = [path for path in writer.obsolete._files_left if path.suffix == ".seg"]
        assert len(obsolete) > 1
        opens, missed = writer.files.open, list[Path]()

        def open_later(path: Path) -> int:
            if path in obsolete and not missed:
                missed.append(path)
                for gone in obsolete:
                    gone.unlink()
            return opens(path)

        monkeypatch.setattr(writer.files, "open", open_later)
        writer.rebuild()
        assert missed
        assert 60 == len(list(backend.scan()))
        writer.unpin(view)


def test_small_packs_of_which_most_is_dead_are_few(tmp_path: Path) -> None:
    """What lives in them moves to the log."""
    with opened(tmp_path / "s") as backend:
        frame = b"".join(frame_for(bytes(500)))
        for version in range(1, 121, 3):
            file = tmp_path / f"snapshot{version}"
            file.write_bytes(3 * frame)
            keys = (f"k{version}", "a", "b")
            items = [
                (record_for(key, version + n), n * len(frame), len(frame))
                for n, key in enumerate(keys)
            ]
            backend.adopt(file, [items])
        assert 40 == len(files(tmp_path / "s", ".pack"))
        run_upkeep(backend)
        assert len(files(tmp_path / "s", ".pack")) <= compaction.MAX_SMALL_FILES + 1
        assert 42 == len(list(backend.scan()))
        assert [] == backend.check()


def test_an_index_is_rebuilt_from_a_log_that_ends_in_copies(tmp_path: Path) -> None:
    """Copies say how far the log was synced when they were new, and segments went since then."""
    with opened(tmp_path / "s") as backend:
        writer = backend._writer
        assert writer is not None
        for version in range(1, 301):
            backend.write(record_for(f"k{version}", version), frame_for(bytes(900)))
        for version in range(301, 401):
            backend.remove(f"k{3 * (version - 300)}", version)
        writer.checkpoint(seal=True)
        before = set(files(tmp_path / "s", ".seg"))
        with writer.upkeep_lock:
            while compaction._empty_one(writer, lambda: None):
                pass
        assert len(set(files(tmp_path / "s", ".seg")) - before) > 3
        index, _ = writer._rebuild()
        found = [(row.record, row.segment, row.offset) for row in index.rows()]
        assert 200 == len(found)
        assert found == [(row.record, row.segment, row.offset) for row in writer.index.rows()]


def test_one_look_says_what_the_three_questions_say(tmp_path: Path) -> None:
    """Most stores ask once; a store that takes the long way asks as before."""
    chance = random.Random(5)
    with opened(tmp_path / "s") as backend:
        backend.write(record_for("k", 1), frame_for(bytes(900)))
        writer = backend._writer
        assert writer is not None
        space, accounting = writer.space, writer.accounting
        answers = set[bool]()
        for _ in range(3000):
            capacity = chance.choice([1 << 20, 100 << 20, 1 << 30])
            space.limits = space.limits._replace(capacity=capacity)
            whole = chance.choice([capacity // 2, capacity, 2 * capacity])
            with_values, packs = chance.randrange(whole // 3), chance.randrange(whole // 3)
            accounting.log_bytes = log = chance.randrange(whole // 3)
            accounting.pack_bytes, accounting.value_bytes = packs, with_values
            accounting.log_live = chance.randrange(log + 1)
            accounting.pack_live = chance.randrange(packs + 1)
            accounting.value_live = chance.randrange(with_values + 1)
            accounting.live = accounting.log_live + accounting.pack_live + accounting.value_live
            space.import_bytes = chance.choice([0, 0, capacity // 8])
            space.copied_bytes = chance.randrange(space.import_bytes + 1)
            space.claims = chance.choice([{}, {CallOwner(): capacity // 8}])
            space.recent_heads = chance.choice([0, capacity // 64])
            size, most, before = chance.randrange(60_000), chance.randrange(90_000), 0
            if chance.random() < 0.3:
                before = chance.randrange(capacity // 4)
            charged, room = space.measure()
            fits_budget = max(size, most) <= min(capacity - charged, room) - before
            expected = fits_budget and space.fits(size) and space.dead_within_bound(size)
            assert expected == space.takes(size, before + max(size, most))
            answers.add(expected)
        assert {True, False} == answers
        space.limits = space.limits._replace(capacity=1 << 40)
        space.import_bytes = space.copied_bytes = 0
        space.claims = {}
        backend.check()
