"""Merges runs of the index, so that a look-up asks few of them and replaced rows are given back."""

from __future__ import annotations

from collections.abc import Callable

from memories.backends.disk.index_files import forget_tombstones
from memories.backends.disk.run import Run
from memories.backends.disk.run_table import RunDamagedError
from memories.backends.disk.run_writer import merged_rows
from memories.backends.disk.tombstones import ForgottenTombstones
from memories.backends.disk.writer import Writer
from memories.foundation.call_owner import CallOwner

Pace = Callable[[], None]

MERGE_RUNS = 4
MERGE_ALL_ROWS = 2_000_000


def merge_runs(writer: Writer, pace: Pace, *, quiet: bool = False) -> None:
    """Merge runs of similar size, so that a lookup asks few of them."""
    with writer.index_files.merge_lock:
        while True:
            runs = writer.index.runs
            group = runs[: _group([run.count for run in runs])]
            if quiet and len(runs) > 1 and sum(run.count for run in runs) <= MERGE_ALL_ROWS:
                group = runs
            if len(group) < 2 or not _has_room(writer, group):
                return
            merge(writer, group, pace, last=len(group) == len(runs))


def merge(writer: Writer, group: tuple[Run, ...], pace: Pace, *, last: bool) -> None:
    """Replace neighbouring runs by one; `last` where no older run would be left.

    The caller holds `merge_lock`.
    """
    with writer.lock:
        number = writer.accounting.file_number()
        segments = sorted(writer.accounting.segments)
    index_files = writer.index_files
    with writer.upkeep_lock:  # Otherwise a checkpoint may just be saving the name of a run.
        index_files.discard_unnamed_runs()
    forgotten = ForgottenTombstones(segments)
    with writer.claimed(_merged_bytes(writer, group), CallOwner()):
        rows = merged_rows([run.raw() for run in group], forgotten.drops if last else None)
        try:
            run = index_files.write(number, rows, pace)
        except RunDamagedError:
            writer.rebuild()  # From the log; the next checkpoint makes one run of all rows.
            return
    new = () if run is None else (run,)
    with writer.upkeep_lock:
        if any(run not in writer.index.runs for run in group):
            # Another thread has rebuilt the index from the log.
            index_files.discard(number)
            return
        assert index_files.saved is not None
        at = writer.index.runs.index(group[0])
        runs = (*writer.index.runs[:at], *new, *writer.index.runs[at + len(group) :])
        forgotten.leave_out(lambda key: any(one.row(key) is not None for one in runs[:at]))
        forget_tombstones(index_files.saved, forgotten.bytes())
        index_files.saved.runs = [run.number for run in runs]
        index_files.saved.next_file = max(index_files.saved.next_file, number + 1)
        index_files.save(index_files.saved, number)
        with writer.lock:
            tables = writer.index.tables
            forgotten.leave_out(lambda key: any(key in table for table in tables))
            writer.index.replace(group, new)
            writer.accounting.forget_tombstones(forgotten.bytes())
            writer.space.count_index(writer.index.runs)
    for old in group:
        index_files.discard(old.number)


def merge_pays(writer: Writer, awaited: int) -> bool:
    """Return whether a merge of all runs gives much back, and has the room that it takes."""
    runs = writer.index.runs
    if len(runs) < 2:
        return False
    newer = sum(run.bytes for run in runs[:-1])
    much = newer > max(writer.space.limits.segment // 4, runs[-1].bytes // 4)
    return much and _has_room(writer, runs, awaited)


def _group(counts: list[int]) -> int:
    """Return how many of the newest runs to merge, 0 for none. Pure."""
    total, size = 0, 0
    for count in counts:
        if size and count > 4 * total:
            break
        total += count
        size += 1
    return size if size >= MERGE_RUNS else 0


def _has_room(writer: Writer, group: tuple[Run, ...], awaited: int = 0) -> bool:
    """Return whether runs can be merged: they stay until the new one is there."""
    return _merged_bytes(writer, group) <= writer.space.copy_room(awaited)


def _merged_bytes(writer: Writer, group: tuple[Run, ...]) -> int:
    """Return about what the run will take that replaces `group`."""
    whole = sum(run.bytes for run in group)
    everything = len(group) == len(writer.index.runs)
    return min(whole, writer.space.index_live()) if everything else whole
