"""The archive outlives the machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from memories import MemoryManager


def test_a_fresh_machine_gets_every_archived_key_back(tmp_path: Path) -> None:
    """An empty storage_path and the same glacier_url are enough."""
    url = tmp_path / "bucket"
    values = {f"k/{index}": np.arange(index * 1000) for index in range(20)}
    with MemoryManager(1, 1, 1, True, storage_path=tmp_path / "lost", glacier_url=url) as lost:
        for key, value in values.items():
            lost.store(key, value, "glacier", metadata={"n": len(value)})
        lost.store("cold", "stays on the lost machine", "cold")
        lost.delete("k/7")
    with MemoryManager(1, 1, 1, True, storage_path=tmp_path / "fresh", glacier_url=url) as fresh:
        del values["k/7"]
        assert sorted(values) == list(fresh)
        assert {"glacier"} == {fresh.get_tier(key) for key in values}  # Reading may fetch ahead.
        for key, value in values.items():
            assert np.array_equal(value, fresh.retrieve(key))
        assert ["k/3"] == list(fresh.find(n=3000))
        fresh.store("k/3", "newer", "hot")
        fresh.delete("k/4")
    with MemoryManager(1, 1, 1, True, storage_path=tmp_path / "fresh", glacier_url=url) as again:
        assert "newer" == again.retrieve("k/3")
        assert "k/4" not in again


def test_purging_unlinks_at_once(tmp_path: Path) -> None:
    """Without it objects stay for their grace time."""
    url = tmp_path / "bucket"
    with MemoryManager(1, 1, 1, True, storage_path=tmp_path / "s", glacier_url=url) as manager:
        for kept in (True, False):
            noise = np.random.default_rng(0).bytes(3_000_000)
            manager.store("a", noise, "glacier")
            manager.flush()
            manager.clear(purge=not kept)
            size = sum(path.stat().st_size for path in url.rglob("*") if path.is_file())
            assert kept == (size > 3_000_000)
            assert "a" not in manager
