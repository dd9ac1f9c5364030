"""Many small frames at once: the same bytes as one by one, in fewer calls."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from memories.backends.disk import DiskBackend
from memories.backends.disk.files import Files
from memories.backends.disk.log_format import PLACE
from memories.errors import ClosedError, StorageError
from memories.testing.backends import frame_for, record_for


class CountedFiles(Files):
    """The operating system, with its reads counted."""

    reads = 0

    def read(self, descriptor: int, length: int, offset: int) -> bytes:
        self.reads += 1
        return super().read(descriptor, length, offset)


def test_many_frames_come_as_they_come_one_by_one(tmp_path: Path) -> None:
    """Whatever their order and sizes, adopted ones and large ones too; few reads do it."""
    files = CountedFiles()
    with DiskBackend(tmp_path / "s", files=files) as backend:
        bodies = {f"k{n:03}": os.urandom(n * 37 % 5000) for n in range(300)}
        bodies |= {"large": os.urandom(2 << 20), "middle": os.urandom(100_000)}
        for version, (key, body) in enumerate(bodies.items(), start=1):
            backend.write(record_for(key, version, size=len(body)), [memoryview(body)])
        pack = tmp_path / "pack"
        pack.write_bytes(os.urandom(50_000))
        backend.adopt(pack, [[(record_for(f"p{n}", 900 + n), n * 1000, 900) for n in range(40)]])
        bodies |= {f"p{n}": pack.read_bytes()[n * 1000 : n * 1000 + 900] for n in range(40)}
        records = list(backend.scan())
        random.Random(1).shuffle(records)
        files.reads = 0
        frames = backend.read_many(records)
        assert [bodies[record.key] for record in records] == frames
        assert files.reads < 10


def test_a_frame_that_moved_meanwhile_is_found_where_it_is_now(tmp_path: Path) -> None:
    """Compaction unlinks a segment at any moment."""
    with DiskBackend(tmp_path / "s") as backend:
        for version in range(1, 6):
            body = bytes([version]) * 100
            backend.write(record_for(f"k{version}", version, size=100), [memoryview(body)])
        records = list(backend.scan())
        writer = backend._writer
        assert writer is not None
        writer.log.cut()
        for record in records:
            row = writer.row(record.key)
            assert row is not None
            writer.rewrite(row)
        writer.sync()
        writer.drop_segment(1)
        writer.unlink_obsolete()
        assert [bytes([n]) * 100 for n in range(1, 6)] == backend.read_many(records)


class DroppingFiles(Files):
    """The operating system, where another thread drops the handles while a frame is read."""

    drop: Callable[[], None] | None = None

    def read(self, descriptor: int, length: int, offset: int) -> bytes:
        if self.drop is not None:
            self.drop()
        return super().read(descriptor, length, offset)


@pytest.mark.parametrize("together", [False, True])
def test_a_file_stays_open_while_it_is_read(tmp_path: Path, together: bool) -> None:
    """Else the number of its descriptor is that of another file, or of none."""
    files = DroppingFiles()
    with DiskBackend(tmp_path / "s", files=files) as backend:
        for version in range(1, 4):
            body = bytes([version]) * 100
            backend.write(record_for(f"k{version}", version, size=100), [memoryview(body)])
        records = list(backend.scan())
        handles = backend._reader.handles
        files.drop = lambda: handles.remove(1)
        for number, record in enumerate(records, start=1):
            handles.get(1)
            if together:
                assert [bytes([number]) * 100] == backend.read_many([record])
            else:
                assert (record, bytes([number]) * 100) == backend.small_reads.find(record.key)


def test_what_was_adopted_is_counted_as_a_replay_counts_it(tmp_path: Path) -> None:
    """New keys of a batch are counted together; a crash must not change the account."""
    pack = tmp_path / "pack"
    pack.write_bytes(bytes(100_000))
    with DiskBackend(tmp_path / "s") as backend:
        for version in range(1, 20):
            backend.write(record_for(f"k{version}", version, size=9), [memoryview(bytes(9))])
        items = [(record_for(f"k{n}", 100 + n), n * 64, 60) for n in range(10, 90)]
        backend.adopt(pack, [items[:30], items[30:]])
        backend.remove("k50", 900)
        writer = backend._writer
        assert writer is not None
        counted = dict(vars(writer.accounting))
        writer.rebuild()
        assert counted == dict(vars(writer.accounting)) | {"retired": counted["retired"]}


def test_more_records_than_are_sorted_together(tmp_path: Path) -> None:
    """In any order, repeated, and beside one whose place no file has."""
    with DiskBackend(tmp_path / "s") as backend:
        items = [(record_for(f"k{n}", n + 1), frame_for(b"%d" % n)) for n in range(9_000)]
        records = backend.write_many(items)
        chosen = random.Random(1).choices(records, k=20_000)
        expected = [b"".join(items[record.version - 1][1]) for record in chosen]
        assert expected == [bytes(frame) for frame in backend.read_many(chosen)]
        kind, file, _, length = PLACE.unpack(records[0].place)
        far = replace(records[0], place=PLACE.pack(kind, file, 1 << 40, length))
        frames = backend.use_neighbours([*chosen, far], lambda frame, _: frame, b"")
        assert [*expected, b""] == frames


def test_a_pack_that_is_gone_is_named_among_many(tmp_path: Path) -> None:
    """Read together the values are read one by one in the end, which finds the name."""
    pack = tmp_path / "pack"
    pack.write_bytes(os.urandom(5000))
    with DiskBackend(tmp_path / "s") as backend:
        backend.write(record_for("here", 1, size=4), [memoryview(b"here")])
        backend.adopt(pack, [[(record_for(f"p{n}", 2 + n), n * 1000, 900) for n in range(5)]])
        (adopted,) = (tmp_path / "s").rglob("*.pack")
        adopted.unlink()
        with pytest.raises(StorageError, match=r"could not read 'p0': .* is not there"):
            backend.read_many(list(backend.scan()))


def test_parts_of_a_frame_that_is_not_encrypted(tmp_path: Path) -> None:
    """They are parts of the whole."""
    with DiskBackend(tmp_path / "s") as backend:
        record = backend.write(record_for("k", 1, size=5), [memoryview(b"frame")])
        assert [b"fr", b"", b"me"] == backend.read_ranges(record, [(0, 2), (1, 1), (3, 5)])


def test_a_closed_store_opens_no_file(tmp_path: Path) -> None:
    """Also for a record that was looked up before."""
    backend = DiskBackend(tmp_path / "s")
    record = backend.write(record_for("k", 1, size=5), [memoryview(b"frame")])
    backend.close()
    with pytest.raises(ClosedError, match="was closed; open it again"):
        backend.read(record)
