"""A store without a path ends with its process, so nothing in it is synced."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.forking import in_child

from memories import MemoryManager


@pytest.mark.parametrize(
    ("options", "synced"),
    [({}, False), ({"durability": "full"}, True), ({"storage_path": "store"}, True)],
)
def test_only_what_must_survive_a_power_cut_is_synced(
    options: dict[str, Any], synced: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache in a private directory would wait for the disk, and wear it out, for nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    calls = []
    name = "fdatasync" if hasattr(os, "fdatasync") else "fsync"
    real = getattr(os, name)
    monkeypatch.setattr(os, name, lambda file: (calls.append(file), real(file)))

    def run() -> bool:
        with MemoryManager("1 MB", "1 MB", "50 MB", **options) as manager:
            manager.store("large", np.zeros(1_000_000), tier="cold")
            manager.store("small", "text", tier="cold")
            manager.flush()
            assert "text" == manager.retrieve("small")
        return bool(calls)

    assert str(synced) == in_child(run), "in a process where no manager of another test syncs"
