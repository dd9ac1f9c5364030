"""A run whose manifest could not be saved is unlinked, unless the manifest names it."""

from __future__ import annotations

from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from tests.support.disk_stores import without_maintenance

from memories.backends.disk import DiskBackend, manifest, run_merge
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
