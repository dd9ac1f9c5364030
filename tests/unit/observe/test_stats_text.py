"""`print(manager.stats())` is a table that a person reads, without a dashboard."""

from __future__ import annotations

import numpy as np

from memories import MemoryManager
from memories.foundation.table import text_table
from memories.foundation.units import format_seconds


def test_stats_print_as_tables() -> None:
    """The tiers with their sizes and hits, the moves, the times of calls, and the rest in words."""
    with MemoryManager("1 MB", "2 MB", "10 MB", migration=False, prefetch="off") as manager:
        manager.store_many({f"k{number}": np.zeros(1000) for number in range(1200)}, "cold")
        manager.store("hot", b"x", "hot")
        for _ in range(3):
            manager.retrieve("hot")
        manager.retrieve("k1")
        manager.get("absent")
        manager.migrate("k1", "warm")
        manager.delete("k2")
        tiers, words, moves, times = str(manager.stats()).split("\n\n")
    rows = [line.split("  ") for line in tiers.splitlines()]
    assert ["tier", "hot", "warm", "cold", "glacier"] == [row[0].strip() for row in rows]
    hot, cold, glacier = (list(filter(None, map(str.strip, rows[at]))) for at in (1, 3, 4))
    assert ["1.0 MB", "1", "3", "60.0 %", "host RAM, standing in for a GPU"] == hot[2:]
    assert ["1,198", "1", "20.0 %", "local disk"] == cold[-4:]
    assert ["glacier", "off"] == glacier
    said = words.splitlines()
    assert "5 reads, 60.0 % of them answered by hot or warm, 1 of absent keys" == said[0]
    assert said[1].startswith("1,201 stored, 9.")
    assert "gone: 1 removed" == said[2]
    assert "cold to warm  explicit" in moves
    assert {"retrieve cold", "store hot", "store cold"} <= {
        line.partition("   ")[0].strip() for line in times.splitlines()
    } | {line[:13].strip() for line in times.splitlines()}


def test_a_manager_without_reads_has_no_rate() -> None:
    """Nothing is divided by nothing, and no share is claimed."""
    with MemoryManager("1 MB", "2 MB", "10 MB") as manager:
        text = str(manager.stats())
    assert "0 reads\n0 stored, 0 B" in text
    assert "nan" not in text


def test_a_table_aligns_its_columns() -> None:
    """Numbers stand under each other; no line ends with spaces."""
    assert "a    n\nbb  10\nc    5" == text_table(("a", ">n"), [("bb", "10"), ("c", "5")])


def test_times_have_a_suitable_unit() -> None:
    """A hit takes microseconds, an archive minutes."""
    times = [3e-7, 0.00123, 0.5, 12.0, None, float("nan")]
    assert ["0.3 µs", "1.23 ms", "500 ms", "12 s", "n/a", "n/a"] == list(map(format_seconds, times))
