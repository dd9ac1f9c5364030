"""The series: equal in length, exact in counts, honest about what was not, and exportable."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from memories import InvalidOptionError, MemoryManager, StorageError
from memories.foundation.host_limits import ENTRY_BYTES
from memories.observe.analytics import Series

KB = np.zeros(1000, dtype=np.uint8)


def watched(manager: MemoryManager) -> Series:
    """Make some of everything happen, and return the series of it."""
    manager.store("before", KB, tier="warm")
    manager.retrieve("before")
    manager.enable_analytics(interval=3600)
    for number in range(4):
        manager.store(f"key/{number}", KB, tier="warm")
    for _ in range(10):
        manager.retrieve("key/0")
    manager.migrate("key/1", "cold")
    manager.retrieve("key/1")
    manager.get("nothing")
    return manager.get_analytics()


def test_counts_are_exact_and_begin_with_the_analytics() -> None:
    """One thread, no loss; what was before does not count."""
    with MemoryManager(0.001, 0.001, 1, migration=False, prefetch="off") as manager:
        series = watched(manager)
    assert (10, 1, 1) == (
        series["warm_hits"][-1],
        series["cold_hits"][-1],
        series["misses"][-1],
    )
    assert 0 == series["warm_hits"][0]
    assert 100 * 10 / 12 == pytest.approx(series["hit_rate"][-1])
    assert len(KB) + ENTRY_BYTES == series["moved_bytes_explicit"][-1]
    assert series["cold_written_bytes"][-1] > 0


def test_latencies_are_there_by_tier_and_operation() -> None:
    """And NaN before there were any; hits in RAM take no clock and have none."""
    with MemoryManager(0.001, 0.001, 1, migration=False, prefetch="off") as manager:
        series = watched(manager)
    for name in ("cold_retrieve", "warm_store", "cold_move", "cold_write"):
        assert 0 < series[f"{name}_p50_seconds"][-1] <= series[f"{name}_p99_seconds"][-1] < 60
    assert math.isnan(series["cold_retrieve_p50_seconds"][0])
    assert "warm_retrieve_p50_seconds" not in series


def test_compression_is_what_the_files_say() -> None:
    """A thousand zeros shrink; random bytes do not."""
    with MemoryManager(1, 1, 1, migration=False, prefetch="off") as manager:
        manager.enable_analytics(interval=3600)
        manager.store("zeros", np.zeros(1_000_000), tier="cold")
        ratio = manager.get_analytics()["cold_compression"][-1]
        held = manager._services.hierarchy.catalog.journal.usage().live
    assert ratio > 10
    assert 8_000_256 / held == pytest.approx(ratio, rel=0.1)


def test_all_series_have_one_length() -> None:
    """Whatever appeared when."""
    with MemoryManager(0.001, 0.001, 1) as manager:
        assert 1 == len({len(column) for column in watched(manager).values()})


def test_a_window_is_the_latest_part() -> None:
    """Seconds are counted back from the last point."""
    series = Series({"timestamps": [0.0, 1.0, 2.0, 3.0], "hit_rate": [1.0, 2.0, 3.0, 4.0]})
    assert {"timestamps": [2.0, 3.0], "hit_rate": [3.0, 4.0]} == series.window(1.5)
    assert series == series.window(None)
    with pytest.raises(InvalidOptionError):
        series.window(0)


def test_thinned_series_keep_the_last_point() -> None:
    """The state of now is what is asked for most."""
    series = Series({"timestamps": [float(one) for one in range(1000)]})
    for points in (1, 7, 64, 999, 1000, 5000):
        thin = series.thinned(points)["timestamps"]
        assert len(thin) <= points
        assert 999.0 == thin[-1]
    assert {"timestamps": []} == Series({"timestamps": []}).thinned(5)


def test_they_go_to_pandas_arrow_and_csv(tmp_path: Path) -> None:
    """One row a point, nothing lost."""
    pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    series = Series({"timestamps": [0.0, 1.5], "hit_rate": [math.nan, 50.0]})
    frame = series.to_pandas()
    assert ("timestamps", 50.0) == (frame.index.name, frame.loc[1.5, "hit_rate"])
    assert {"timestamps": [0.0, 1.5]} == series.to_arrow().select(["timestamps"]).to_pydict()
    text = series.to_csv(tmp_path / "series.csv")
    assert text == (tmp_path / "series.csv").read_text("utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert [
        {"timestamps": "0.0", "hit_rate": "nan"},
        {"timestamps": "1.5", "hit_rate": "50.0"},
    ] == rows
    with pytest.raises(StorageError, match="missing"):
        series.to_csv(tmp_path / "missing" / "series.csv")
