"""Snapshot files of every format version, kept for ever: they must open, and not change by chance.

`python tests/unit/snapshot/test_golden.py` writes the files of the current version where they are
missing; it never replaces one.
"""

from __future__ import annotations

import datetime
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memories import MemoryManager, codecs
from memories.frames.reader import open_frame
from memories.frames.writer import pack
from memories.model.record import Record, Terms
from memories.model.tiers import TierName
from memories.snapshot import Base, Item, Linked, Packed, Whole, create, open_snapshot, writer
from memories.snapshot.incremental_chain import IncrementalChain

GOLDEN = Path(__file__).parent / "golden"
VALUES: dict[str, Any] = {
    "dir/array.npy": np.arange(1_200, dtype="<f4").reshape(30, 40),
    "fortran": np.asfortranarray(np.arange(900, dtype=">i4").reshape(30, 30)),
    "number": 12,
    "text": "żółw 🐢",
    "tree": {"when": datetime.date(2026, 11, 22), "parts": [b"x" * 6_000, None, (1.5, True)]},
}
LATER = {**VALUES, "number": 13}
TERMS = Terms(expires_at=4e9, metadata={"sensor": ["S2A", 1]}, pinned=True, min_tier=TierName.WARM)


def items(values: dict[str, Any], version: int, base: Path | None) -> list[Item]:
    """Return the items of a snapshot, linked to `base` where the value is the same."""
    found: list[Item] = []
    held = {row.key: row.where for row in open_snapshot(base).rows()} if base else {}
    for number, (key, value) in enumerate(sorted(values.items()), 1):
        changed = value is not VALUES[key]
        frame = pack(codecs.encode(value), key=key, version=version if changed else number)
        record = Record(
            key=key, version=version if changed else number, tier=list(TierName)[number % 4],
            size=100 * number, stored_at=1000.5 + number, kind=codecs.encode(value).codec,
            terms=TERMS if key == "tree" else Terms(),
        )  # fmt: skip
        where = held.get(key)
        if isinstance(where, (Whole, Packed)) and not changed:
            found.append(Item(record, Linked(0, where.offset, where.length)))
        else:
            found.append(Item(record, frame.segments))
    return found


def write(directory: Path) -> None:
    """Write the golden files of the current version, where they are missing."""
    full, increment = directory / "v1-full.snapshot", directory / "v1-increment.snapshot"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "__version__", "0")
        fixed = {"created_at": 2000.0, "archive": "s3://bucket/prefix"}
        if not full.exists():
            create(full, items(VALUES, 5, None), sequence=5, identity=b"F" * 16, **fixed)
        if not increment.exists():
            bases = [Base(b"F" * 16, full.name)]
            create(
                increment, items(LATER, 9, full), sequence=9, identity=b"I" * 16, bases=bases,
                **fixed,
            )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "values"), [("v1-full.snapshot", VALUES), ("v1-increment.snapshot", LATER)]
)
def test_golden_files_open_as_they_did(name: str, values: dict[str, Any], tmp_path: Path) -> None:
    """What was written by any release is read by every later one."""
    with IncrementalChain(GOLDEN / name) as chain:
        chain.verify()
        rows = {row.key: row for row in chain.rows()}
        assert sorted(values) == list(rows)
        for key, value in values.items():
            frame = chain.frame(rows[key])
            np.testing.assert_equal(codecs.decode(open_frame(frame, key=key).parts()), value)
        assert TERMS == rows["tree"].terms
        assert (TierName.GLACIER, 300, 1003.5) == (
            rows["number"].tier, rows["number"].size, rows["number"].stored_at,
        )  # fmt: skip
    with MemoryManager(storage_path=tmp_path / "store", migration=False) as manager:
        manager.restore_snapshot(GOLDEN / name, wait=True)
        np.testing.assert_equal(values, dict(manager))


@pytest.mark.parametrize("name", ["v1-full.snapshot", "v1-increment.snapshot"])
def test_the_writer_still_writes_the_golden_bytes(name: str, tmp_path: Path) -> None:
    """A change of the format must be meant, numbered and described."""
    write(tmp_path)
    assert (GOLDEN / name).read_bytes() == (tmp_path / name).read_bytes()


def test_numpy_reads_the_golden_file() -> None:
    """The suffixes and the headers are part of the format."""
    with np.load(GOLDEN / "v1-full.snapshot") as loaded:
        np.testing.assert_array_equal(VALUES["dir/array.npy"], loaded["dir/array%2Enpy"])


if __name__ == "__main__":
    sys.exit(write(GOLDEN))
