"""A tombstone stays as long as it hides an earlier record in the log, and hardly longer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.support.waiting import until

from memories.backends.disk import DiskBackend, compaction, run_merge
from memories.backends.disk.log_format import (
    INLINE,
    NOWHERE,
    TOMBSTONE,
    IndexRow,
    Position,
    pack_body,
    pack_head,
    unpack_head,
)
from memories.backends.disk.tombstones import earlier_of, needed, with_earlier
from memories.backends.disk.writer import Writer
from memories.testing.backends import frame_for, record_for

NOISE = os.urandom(1 << 16)


def row(kind: int, segment: int, oldest: int, beyond: int) -> IndexRow:
    return IndexRow(record_for("k", 1), kind, segment, 64, 128, oldest, beyond)


@pytest.mark.parametrize(
    ("old", "expected"),
    [
        (None, (NOWHERE, 0)),
        (row(INLINE, 7, NOWHERE, 0), (7, 8)),  # The first record of its key.
        (row(INLINE, 7, 2, 3), (7, 8)),  # It was copied from 2, which is gone.
        (row(INLINE, 7, 3, 4), (3, 8)),  # 3 is still there.
        (row(INLINE, 7, 2, 6), (3, 8)),
        (row(INLINE, 7, 4, 6), (5, 8)),
        (row(INLINE, 7, 2, 0), (3, 8)),  # As written before `beyond` was.
        (row(INLINE, 7, 6, 0), (7, 8)),
        (row(TOMBSTONE, 7, 2, 3), (NOWHERE, 0)),  # It hides nothing, and is no value itself.
        (row(TOMBSTONE, 7, 2, 6), (3, 6)),
        (row(TOMBSTONE, 7, 3, 0), (3, 8)),
        (row(TOMBSTONE, 7, NOWHERE, 0), (NOWHERE, 0)),
    ],
)
def test_where_earlier_records_are(old: IndexRow | None, expected: tuple[int, int]) -> None:
    """In the segments that exist, that of the newest record among them."""
    assert expected == earlier_of(old, {3: None, 5: None, 7: None, 9: None})


def test_a_tombstone_is_needed_for_other_segments_only() -> None:
    """What lies in its own segment goes with it."""
    numbers = [3, 5, 7, 9]
    assert needed(numbers, 7, 3, 4)
    assert needed(numbers, 7, 4, 6)
    assert needed(numbers, 7, 4)
    assert not needed(numbers, 7, 4, 5)
    assert not needed(numbers, 7, 6, 8)
    assert not needed(numbers, 7, 6)
    assert not needed(numbers, 7, NOWHERE, 0)
    assert not needed([], 7, 0)


def test_what_a_replay_finds_is_added_to_what_the_header_says() -> None:
    """A copy says what was earlier when it was new."""
    assert row(INLINE, 7, 3, 6) == with_earlier(row(INLINE, 7, NOWHERE, 0), 3, 6)
    assert row(INLINE, 7, 3, 6) == with_earlier(row(INLINE, 7, 3, 6), NOWHERE, 0)
    assert row(INLINE, 7, 2, 6) == with_earlier(row(INLINE, 7, 3, 6), 2, 5)
    assert row(INLINE, 7, 2, 0) == with_earlier(row(INLINE, 7, 3, 0), 2, 5)


@pytest.mark.parametrize(
    ("beyond", "found"), [(5, 5), (0, 0), (4 + 0xFFFF, 4 + 0xFFFF), (4 + 0x10000, 0)]
)
def test_a_header_says_so_in_two_bytes(beyond: int, found: int) -> None:
    """A longer span is one that is not known."""
    body = pack_body(TOMBSTONE, record_for("k", 1), None)
    synced = Position(1, 64)
    head = unpack_head(pack_head(TOMBSTONE, body, oldest=4, synced=synced, beyond=beyond))
    assert head is not None
    assert (4, found) == (head.oldest, head.beyond)


def open_store(path: Path) -> tuple[DiskBackend, Writer]:
    """Open a store of small segments, whose upkeep runs only when it is called."""
    backend = DiskBackend(path, capacity_bytes=3_000_000)
    assert backend._maintenance is not None
    assert backend._writer is not None
    backend._maintenance.start = lambda: None  # type: ignore[method-assign]
    backend._maintenance.stop()
    return backend, backend._writer


def empty(writer: Writer, which: int) -> None:
    """Empty one of the segments, whatever lives in it."""
    writer.checkpoint(seal=True)
    covered = writer.index_files.covered.segment
    numbers = sorted(n for n in writer.accounting.segments if n < covered)
    if numbers:
        number = numbers[which % len(numbers)]
        compaction._empty_segment(writer, number, lambda: None)


steps = st.one_of(
    st.tuples(st.sampled_from(["write", "remove"]), st.integers(0, 1)),
    st.tuples(st.just("empty"), st.integers(0, 20)),
    st.tuples(st.sampled_from(["merge", "reopen"]), st.just(0)),
)


STORED, REMOVED, EMPTIED = ("write", 0), ("remove", 0), ("empty", 1)


@example([STORED, REMOVED, EMPTIED])
@example([STORED, STORED, REMOVED, EMPTIED, EMPTIED])
@example([STORED, REMOVED, STORED, REMOVED, EMPTIED, EMPTIED, EMPTIED])
@given(st.lists(steps, min_size=5, max_size=30))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_that_was_removed_comes_back_from_the_log(
    tmp_path_factory: pytest.TempPathFactory, done: list[tuple[str, int]]
) -> None:
    """Whatever was emptied and merged: the log alone yields what the index said."""
    path = tmp_path_factory.mktemp("s")
    backend, writer = open_store(path)
    known: dict[str, int] = {}
    for version, (step, at) in enumerate(done, 1):
        key = f"k{at}"
        match step:
            case "write":
                backend.write(record_for(key, version), frame_for(NOISE[:500]))
                known[key] = version
                writer.log.cut()
            case "remove":
                backend.remove(key, version)
                known.pop(key, None)
                writer.log.cut()
            case "empty":
                empty(writer, at)
            case "merge":
                writer.checkpoint()
                run_merge.merge_runs(writer, lambda: None, quiet=True)
            case "reopen":
                backend.close()
                backend, writer = open_store(path)
        assert known == {record.key: record.version for record in backend.scan()}
        rebuilt, _ = writer._rebuild()
        assert known == {row.record.key: row.record.version for row in rebuilt.rows()}
    backend.close()


def test_tombstones_go_with_what_they_hide(tmp_path: Path) -> None:
    """Each value is stored and removed once, as in a cache; five generations of them."""
    with DiskBackend(tmp_path / "s", capacity_bytes=4_000_000) as backend:
        keys: list[str] = []
        for version in range(2, 8000, 2):
            while backend.room() < 8192:
                backend.remove(keys.pop((version * 7919) % len(keys)), version)
            keys.append(f"k{version}")
            backend.write(record_for(keys[-1], version + 1), frame_for(NOISE[:5000]))
        writer = backend._writer
        assert writer is not None
        until(lambda: writer.accounting.tombstones < 0.02 * writer.accounting.log_bytes)
        assert backend.usage().live > 0.7 * 4_000_000
        assert [] == backend.check()
