"""Whether a manager at rest is whole: what is derived agrees with what it follows from."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.waiting import until

from memories import MemoryManager
from memories.engine.budget import BackendBudget, Budget
from memories.engine.victims import PolicyVictims
from memories.model.record import Record
from memories.model.tiers import TierName

ACCOUNT = (
    "log_bytes", "pack_bytes", "log_live", "value_live", "pack_live", "live", "keys", "elsewhere",
)  # fmt: skip


def assert_whole(manager: MemoryManager) -> None:
    """Fail if a lock, a reservation or a file is left behind, or two accounts disagree."""
    hierarchy = manager._hierarchy
    until(lambda: _is_mended(hierarchy.operations))
    _assert_no_call_is_under_way(hierarchy)
    with _no_other_call(hierarchy.operations):
        hierarchy.settlement.settle()
        entries = hierarchy.catalog.entries
        _assert_volatile_tiers(hierarchy, entries)
        _assert_disk(hierarchy)
        for key, entry in entries.items():
            record = hierarchy.catalog.record(key)
            if record is None:
                assert entry.backed is None, f"{key!r} has no record under it"
            else:
                assert record.version == entry.version, f"{key!r} has two versions"
                assert entry.backed is record.tier, f"{key!r} does not know its backing copy"
        if TierName.GLACIER in hierarchy.tiers:
            _assert_archive(hierarchy)


@contextmanager
def _no_other_call(operations: Any) -> Iterator[None]:
    """Let no background thread change anything, such as one that moves restored values to RAM."""
    with operations._gate:
        operations._is_gate_closed = True
        try:
            until(lambda: not any(call.alive for call in list(operations._running.values())))
            yield
        finally:
            operations._is_gate_closed = False


def _is_mended(operations: Any) -> bool:
    """Return whether a call has mended what an interrupted end left.

    The call after it does. If a background thread was at work then, a later one does.
    """
    operations.run(int)
    return bool(operations._recounted and not operations._unrepaired)


def _assert_no_call_is_under_way(hierarchy: Any) -> None:
    operations = hierarchy.operations
    # A background thread may be in the middle of a call of its own.
    until(lambda: not any(call.alive for call in list(operations._running.values())))
    assert set() == operations._unrepaired
    assert operations._recounted
    assert {} == hierarchy.locks.held
    assert {} == hierarchy.locks._waits
    assert not hierarchy.mover._nesting.depth
    for lock in (
        operations._gate,
        hierarchy.locks.mutex,
        hierarchy.catalog.lock,
        hierarchy.settlement._lock,
        *(tier.budget._lock for tier in hierarchy.tiers.values()),
    ):
        assert _is_free(lock)


def _is_free(lock: threading.Lock) -> bool:
    with_it = lock.acquire(timeout=10)
    if with_it:
        lock.release()
    return with_it


def _assert_volatile_tiers(hierarchy: Any, entries: dict[str, Any]) -> None:
    counts, backing = Counter[TierName](), Counter[TierName]()
    held = Counter[TierName]()
    hosts = Counter[Budget]()
    for entry in entries.values():
        held[entry.tier] += entry.size
        if entry.key[0] == "\0":
            continue
        counts[entry.tier] += 1
        if entry.backed:
            backing[entry.backed] += 1
    assert counts == +hierarchy.catalog.counts
    assert backing == +hierarchy.catalog.backing
    for name, tier in hierarchy.tiers.items():
        assert not tier.eviction_threads._threads
        if isinstance(tier.budget, BackendBudget):
            assert 0 == tier.budget._coming, f"bytes are on their way to {name}"
            continue
        used = tier.budget.used
        views = sum(view.size for view in tier.budget._holds)
        assert held[name] + views == used, f"{name} counts what it does not hold"
        hosts[tier.budget.parent] += tier.budget.used
        if isinstance(tier.victims, PolicyVictims):
            tier.victims.policy.check()
            same = [one for one in hierarchy.tiers if hierarchy.tiers[one].victims is tier.victims]
            mine = [entry for entry in entries.values() if entry.tier in same]
            may_leave = [entry for entry in mine if tier.victims._may_leave(entry)]
            assert len(may_leave) == len(tier.victims.policy), f"{name} offers others than it has"
            assert all(entry.link is not None for entry in may_leave)
    for host, used in hosts.items():
        assert host is None or used == host.used


def _assert_disk(hierarchy: Any) -> None:
    writer = hierarchy.catalog.journal._writer
    with writer.index_files.merge_lock, writer.upkeep_lock, writer.lock:  # No upkeep meanwhile.
        assert writer.appender.started is None
        assert {} == writer.space.claims
        assert {} == writer.unnamed
        assert set() == writer.importing == writer.waiting
        assert not writer.obsolete.pins
        index, space = writer._rebuild()
        for name in ACCOUNT[2:]:
            assert getattr(space, name) == getattr(writer.accounting, name), name
        for run in index.runs:
            writer.files.unlink(run.path)
        values = {int(path.stem) for path in writer.paths.values.glob("*.val")}
        rows = list(writer.index.rows())
        live = {int.from_bytes(row.record.place[1:5], "little") for row in rows if row.kind == 2}
        assert live <= values, "the log names a file that is not there"
        assert values - live <= writer.files_in_use(), "a file is left behind"
        assert not list(writer.paths.root.rglob("*.tmp"))


def _assert_archive(hierarchy: Any) -> None:
    bucket = hierarchy.tiers[TierName.GLACIER].backend
    for record in bucket.scan():
        known = hierarchy.catalog.record(record.key)
        assert isinstance(known, Record), f"the archive has {record.key!r}, and the journal not"
        assert known.version == record.version, f"the archive has another {record.key!r}"
