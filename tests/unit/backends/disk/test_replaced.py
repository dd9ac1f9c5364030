"""What becomes of the files of values that were replaced: they go soon, and never too soon."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.disk_stores import without_maintenance
from tests.support.waiting import until

from memories.backends.disk import DiskBackend
from memories.backends.disk.files import Files
from memories.backends.disk.log_format import unpack_place
from memories.model.record import Record
from memories.testing.backends import frame_for, record_for

LARGE = 1 << 20


class CountingFiles(Files):
    """Counts how much is synced of value files."""

    def __init__(self) -> None:
        self.synced: list[int] = []

    def sync(self, descriptor: int) -> None:
        size = self.size(descriptor)
        if size >= LARGE:
            self.synced.append(size)
        super().sync(descriptor)


def values(path: Path) -> list[Path]:
    return list((path / "values").iterdir())


def test_a_value_replaced_before_a_sync_never_reaches_the_disk(tmp_path: Path) -> None:
    """Overwriting in a loop costs only the last version, in writes and in space."""
    files = CountingFiles()
    with without_maintenance(DiskBackend(tmp_path / "s", files=files)) as backend:
        for version in range(1, 21):
            backend.write(record_for("k", version), frame_for(bytes([version]) * LARGE))
        backend.remove("gone", 21)
        backend.write(record_for("gone", 22), frame_for(bytes(LARGE)))
        backend.remove("gone", 23)
        backend.sync()
        assert [LARGE] == files.synced
        assert 1 == len(values(tmp_path / "s"))
        assert backend.usage().physical < LARGE + 200_000 + (1 << 20)
        found = backend.lookup("k")
        assert found is not None
        assert bytes([20]) * LARGE == bytes(backend.read(found))
        assert [] == backend.check()
    with DiskBackend(tmp_path / "s") as again:
        assert (LARGE, 1) == (again.usage().live, again.usage().keys)


def test_a_view_of_a_value_outlives_its_early_end(tmp_path: Path) -> None:
    """A mapping keeps the bytes, and they stay counted until it ends."""
    with without_maintenance(DiskBackend(tmp_path / "s")) as backend:
        first = backend.write(record_for("k", 1), frame_for(b"\1" * LARGE))
        view = backend.read(first)
        backend.write(record_for("k", 2), frame_for(b"\2" * LARGE))
        backend.sync()
        assert b"\1" * LARGE == bytes(view)
        held = backend.usage().physical
        del view
        assert held - LARGE == backend.usage().physical


def test_an_open_view_of_the_store_keeps_a_value_that_was_never_synced(tmp_path: Path) -> None:
    """A snapshot reads what was there when it began."""
    with without_maintenance(DiskBackend(tmp_path / "s")) as backend:
        backend.write(record_for("k", 1), frame_for(b"\1" * LARGE))
        with backend.view() as view:
            backend.write(record_for("k", 2), frame_for(b"\2" * LARGE))
            backend.sync()
            (record,) = view
            assert b"\1" * LARGE == bytes(backend.read(record))
        backend.sync()
        assert 1 == len(values(tmp_path / "s"))


@pytest.mark.parametrize("durability", ["relaxed", "full"])
def test_what_was_replaced_is_unlinked_at_once_in_the_background(
    tmp_path: Path, durability: str
) -> None:
    """Long before the next sync is due: the next write reuses the pages."""
    path = tmp_path / "s"
    with DiskBackend(path, durability=durability) as backend:  # type: ignore[arg-type]
        for version in range(1, 4):
            backend.write(record_for("k", version), frame_for(bytes(LARGE)))
        until(lambda: len(values(path)) == 1)


def test_a_synced_value_stays_until_its_successor_is_synced(tmp_path: Path) -> None:
    """Between the two a power cut would leave neither."""
    with without_maintenance(DiskBackend(tmp_path / "s")) as backend:
        first = backend.write(record_for("k", 1), frame_for(b"\1" * LARGE))
        backend.sync()
        backend.write(record_for("k", 2), frame_for(b"\2" * LARGE))
        backend.write(record_for("k", 3), frame_for(b"\3" * LARGE))
        assert backend._writer is not None
        backend._writer.unlink_obsolete()
        assert 2 == len(values(tmp_path / "s"))
        assert b"\1" * LARGE == bytes(backend._reader.read(first))
        backend.sync()
        assert 1 == len(values(tmp_path / "s"))


def test_a_torn_value_of_a_store_without_a_checkpoint_ends_its_history(tmp_path: Path) -> None:
    """A young store has no index yet, and the power may be cut then too."""
    path = tmp_path / "s"

    def verify(record: Record, frame: memoryview) -> None:
        if frame[0] == 0:
            raise ValueError(f"{record.key!r} is torn")

    backend = without_maintenance(DiskBackend(path))
    backend.write(record_for("k", 1), frame_for(b"\1" * LARGE))
    backend.sync()
    torn = backend.write(record_for("k", 2), frame_for(b"\2" * LARGE))
    value = backend._reader.path(unpack_place(torn.place))
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("log", "values", "index", "stores"):
        (copy / name).mkdir()
    for file in path.rglob("*"):
        if file.is_file() and file.name not in ("LOCK", "RESERVE"):
            (copy / file.relative_to(path)).write_bytes(file.read_bytes())
    (copy / value.relative_to(path)).write_bytes(bytes(LARGE))
    backend.close()
    with DiskBackend(copy, verify=verify) as survivor:
        found = survivor.lookup("k")
        assert found is not None
        assert b"\1" * LARGE == bytes(survivor.read(found))
