"""The index returns the newest row of a key, whatever was looked up before."""

from __future__ import annotations

import random
from pathlib import Path

from memories.backends.disk.files import Files
from memories.backends.disk.index import Index
from memories.backends.disk.log_format import INLINE, IndexRow
from memories.backends.disk.run import Run
from memories.backends.disk.run_writer import run_rows, write_run
from memories.testing.backends import record_for


def row(key: str, version: int) -> IndexRow:
    return IndexRow(record_for(key, version), INLINE, 1, 64 * version, 64, 1)


def test_it_returns_the_newest_row_after_any_change(tmp_path: Path) -> None:
    """A row goes from a table to a run, and from there to another one."""
    chance = random.Random(2)
    index, expected = Index(), dict[str, IndexRow]()
    keys = [f"k{number}" for number in range(12)]
    for version in range(1, 2000):
        key = chance.choice(keys)
        assert expected.get(key) == index.row(key)
        if chance.random() < 0.2:
            expected[key] = row(key, version)
            index.put(expected[key])
        if version % 50 == 0:
            path = tmp_path / f"{version}.run"
            assert write_run(path, Files(), version, run_rows(index.freeze()), lambda: None)
            assert expected.get(key) == index.row(key)
            index.add_run(Run(path, Files()))
        if version % 300 == 0:
            whole = Index((*index.runs,))
            path = tmp_path / f"{version}-merged.run"
            rows = {one.record.key: one for one in whole.rows()}
            write_run(path, Files(), version, run_rows(rows), lambda: None)
            index.replace(index.runs, (Run(path, Files()),))
        again = chance.choice([key, *keys])
        assert expected.get(again) == index.row(again)
    index.close()
    assert all(index.row(key) is None for key in keys)
