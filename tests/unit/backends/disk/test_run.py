"""A run answers for every key as a dictionary would."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from xxhash import xxh3_64_intdigest

from memories.backends.disk.files import Files
from memories.backends.disk.log_format import INLINE, IndexRow, encode_record
from memories.backends.disk.run import Run, pack_row
from memories.backends.disk.run_table import OFFSET_BITS
from memories.backends.disk.run_writer import write_run
from memories.model.record import Terms
from memories.testing.backends import record_for

TAGLESS = "k414650"  # The first 20 bits of its hash are zeros, as in an empty slot of the table.


def build(path: Path, keys: list[str], expires: dict[str, float] | None = None) -> Run:
    rows = []
    for version, key in enumerate(sorted(keys, key=str.encode), start=1):
        ends = (expires or {}).get(key)
        record = record_for(key, version, terms=Terms(expires_at=ends))
        row = IndexRow(record, INLINE, 1, version * 64, 64, 1)
        rows.append((key.encode(), pack_row(row, encode_record), ends))
    assert len(keys) == write_run(path, Files(), 1, rows, lambda: None)
    return Run(path, Files())


def keys_of(rows: Iterable[IndexRow]) -> list[str]:
    return [row.record.key for row in rows]


def test_every_key_and_no_other(tmp_path: Path) -> None:
    """Short keys and long ones, and rows longer than a block of checksums."""
    keys = [f"tile/{n}" for n in range(3000)] + ["x" * 4096, "y" * 31, "z" * 32, "ä" * 300]
    run = build(tmp_path / "1.run", keys)
    for key in keys:
        row = run.row(key)
        assert row is not None
        assert key == row.record.key
        assert run.row(key + "?") is None
    assert sorted(keys) == keys_of(run.rows())
    assert ["tile/2999"] == keys_of(run.rows("tile/2999"))
    assert [f"tile/299{n}" for n in range(1, 10)] == keys_of(run.rows("tile/299", "tile/2990"))
    assert [] == keys_of(run.rows("zx")) == keys_of(run.rows("", "ä" * 300))
    assert keys_of(run.rows()) == [key.decode() for key, _, _ in run.raw()]


def test_a_hash_that_looks_like_an_empty_slot(tmp_path: Path) -> None:
    """One key in a million has it, so a store of a million keys met it."""
    assert 0 == xxh3_64_intdigest(TAGLESS.encode()) >> OFFSET_BITS
    without = build(tmp_path / "1.run", ["a", "b"])
    assert without.row(TAGLESS) is None
    row = build(tmp_path / "2.run", ["a", TAGLESS]).row(TAGLESS)
    assert row is not None
    assert TAGLESS == row.record.key


def test_expiries_come_in_order(tmp_path: Path) -> None:
    """Asking what has expired must not read what has not."""
    run = build(tmp_path / "1.run", ["a", "b", "c", "d"], {"a": 9.0, "b": 3.0, "d": 5.0})
    assert ["b", "d"] == [row.record.key for row in run.expired(8.0)]
    assert [9.0, 3.0, None, 5.0] == [ends for _, _, ends in run.raw()]
