"""A run whose manifest could not be saved is unlinked, unless the manifest names it."""

from __future__ import annotations

from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from tests.support.disk_stores import without_maintenance

from memories.backends.disk import DiskBackend, compaction, manifest, run_merge
from memories.backends.disk.manifest import IndexManifest
from memories.backends.disk.writer import Writer
from memories.testing.backends import frame_for, record_for

SAVE = manifest.save


@pytest.mark.parametrize("saved", [False, True])
def test_a_run_without_a_manifest_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: bool
) -> None:
    """On a full disk each attempt would leave one; a failure may also come after the rename."""

    def save(*arguments: Any) -> None:
        if saved:
            SAVE(*arguments)
        raise OSError("the disk is full")

    with without_maintenance(DiskBackend(tmp_path / "s")) as backend:
        backend.write(record_for("k", 1), frame_for(b"value"))
        writer = backend._writer
        assert writer is not None
        monkeypatch.setattr(manifest, "save", save)
        with pytest.raises(OSError, match="full"):
            writer.checkpoint()
        monkeypatch.setattr(manifest, "save", SAVE)
        runs = tmp_path / "s" / "index"
        assert 1 == len(list(runs.glob("*.run")))
        writer.index_files.discard_unnamed_runs()
        assert saved == bool(list(runs.glob("*.run")))
        writer.checkpoint()
        assert [] == [one.key for one in backend.scan() if one.version != 1]
    with DiskBackend(tmp_path / "s", read_only=True) as reader:
        assert ["k"] == [record.key for record in reader.scan()]


def test_a_merge_spares_the_run_of_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs without a manifest are swept before a merge; one whose manifest is coming must stay."""
    with without_maintenance(DiskBackend(tmp_path / "s")) as backend:
        writer = backend._writer
        assert writer is not None
        for version in range(1, 3):
            backend.write(record_for(f"k{version}", version), frame_for(b"value"))
            writer.checkpoint()
        merging = Thread(
            target=run_merge.merge_runs, args=(writer, lambda: None), kwargs={"quiet": True}
        )

        def save(*arguments: Any) -> None:
            if merging.ident is None:
                merging.start()
                merging.join(0.3)
            SAVE(*arguments)
            there = {int(path.stem) for path in (tmp_path / "s" / "index").glob("*.run")}
            missing.update(set(arguments[0].runs) - there)

        missing = set[int]()
        monkeypatch.setattr(manifest, "save", save)
        backend.write(record_for("k3", 3), frame_for(b"value"))
        writer.checkpoint()
        merging.join()
        assert set() == missing
        assert ["k1", "k2", "k3"] == [record.key for record in backend.scan()]


def small_store(path: Path) -> DiskBackend:
    return DiskBackend(path / "s", capacity_bytes=4_000_000)


def writer_of(backend: DiskBackend) -> Writer:
    assert backend._writer is not None
    return backend._writer


def test_a_small_index_is_written_whole(tmp_path: Path) -> None:
    """It is one run, without the rows of what was replaced and of removals that hide nothing."""
    with without_maintenance(small_store(tmp_path)) as backend:
        writer = writer_of(backend)
        for version in range(1, 41):
            backend.write(record_for(f"k{version}", version), frame_for(bytes(100)))
        writer.checkpoint(seal=True, whole=True)
        for version in range(41, 51):
            backend.remove(f"k{version - 40}", version)
        writer.checkpoint(seal=True, whole=True)
        assert [40] == [run.count for run in writer.index.runs]
        compaction._empty_segment(writer, 1, lambda: None)
        writer.checkpoint(seal=True, whole=True)
        assert [30] == [run.count for run in writer.index.runs]
        assert 0 == writer.accounting.tombstones
        assert [] == backend.check()
    with small_store(tmp_path) as backend:
        assert 30 == len(list(backend.scan()))


def test_a_damaged_run_does_not_prevent_a_checkpoint(tmp_path: Path) -> None:
    """Who writes the whole index reads the run before it; the log has everything."""
    with without_maintenance(small_store(tmp_path)) as backend:
        writer = writer_of(backend)
        for version in range(1, 50):
            backend.write(record_for(f"k{version}", version), frame_for(bytes(100)))
        writer.checkpoint(whole=True)
        (run,) = writer.index.runs
        data = bytearray(run.path.read_bytes())
        data[70] ^= 1
        run.path.write_bytes(data)
        backend.write(record_for("new", 50), frame_for(bytes(100)))
        writer.checkpoint(whole=True)
        assert 50 == len(list(backend.scan()))
        assert [] == backend.check()


def test_an_index_that_was_rebuilt_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thread 1 writes the whole index. Thread 2 finds a damaged run, and rebuilds it."""
    with without_maintenance(small_store(tmp_path)) as backend:
        writer = writer_of(backend)
        backend.write(record_for("k1", 1), frame_for(bytes(100)))
        writer.checkpoint(whole=True)
        backend.write(record_for("k2", 2), frame_for(bytes(100)))
        save = writer.index_files.save

        def rebuilt(manifest: IndexManifest, run: int) -> None:
            save(manifest, run)
            backend.write(record_for("k3", 3), frame_for(bytes(100)))
            writer.rebuild()

        with monkeypatch.context() as patch:
            patch.setattr(writer.index_files, "save", rebuilt)
            writer.checkpoint(whole=True)
        assert ["k1", "k2", "k3"] == [record.key for record in backend.scan()]
        writer.checkpoint()
        assert [] == backend.check()
