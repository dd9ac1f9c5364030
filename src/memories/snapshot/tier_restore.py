"""Moves the values of a restored snapshot back to the tiers they had.

A value that has not been moved yet is read from the adopted file, so no caller waits for this. It
may be stopped at any moment; a value that does not fit or cannot be read stays where it is.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import NamedTuple

from memories.backends.base import LARGE_BYTES
from memories.backends.disk.import_file import Adoption
from memories.engine.batch_write import BATCH_BYTES, BATCH_KEYS, MAX_VALUE, split
from memories.engine.hierarchy import Hierarchy
from memories.engine.lifecycle_state import LifecycleState
from memories.engine.tier import AnyTier, VolatileTier, version_of
from memories.errors import ClosedError, MemoriesError, TierFullError
from memories.foundation.logging import logger
from memories.foundation.periodic import STOP_SECONDS, BackgroundThread, Latch
from memories.foundation.units import MAX_BYTES, format_size
from memories.model.events import Failed, Moved
from memories.model.record import Record
from memories.model.tiers import Cause, TierName
from memories.snapshot.incremental_chain import IncrementalChain
from memories.snapshot.manifest import SnapshotRow
from memories.snapshot.reader import SnapshotFile

_POLL_SECONDS = 0.05  # Between two looks whether it is to stop, while it waits.
_AT_ONCE = (
    64  # Between two pauses in the background; another thread waits for no more than that ...
)
_PAUSE_SECONDS = 1e-4  # ... and runs now, if it does.


class _Step(NamedTuple):
    """What was moved, or could not be."""

    nbytes: int
    values: int


class Arrivals:
    """Brings small values into RAM while their restore holds the locks of their keys.

    It leaves everything unusual to `TierRestore`.

    Attributes:
        count: How many have come.
    """

    def __init__(self, hierarchy: Hierarchy, chain: IncrementalChain) -> None:
        self._hierarchy = hierarchy
        self._chain = chain
        self.count = 0

    def enter(
        self, number: int, rows: Sequence[SnapshotRow], adoptions: Sequence[Adoption]
    ) -> None:
        """Bring values into RAM that were adopted from the file of this number.

        None of them has an entry.
        """
        for name in {row.tier for row in rows}:
            target = self._hierarchy.tiers.volatile.get(name)
            if target is None or target.device is not None:
                continue
            chosen = [
                adoption
                for row, adoption in zip(rows, adoptions, strict=True)
                if row.tier is name and row.size <= MAX_VALUE and adoption[2] <= MAX_VALUE
            ]
            # The restore holds the locks of all of them already.
            for piece in split(chosen, lambda one: one[0].size, most=math.inf):
                self._enter(piece, self._chain.files[number], target)

    def _enter(
        self, adoptions: Sequence[Adoption], file: SnapshotFile, target: VolatileTier
    ) -> None:
        if target.budget.headroom < sum([record.size for record, _, _ in adoptions]):
            return
        try:
            frames = file.frames([(offset, length) for _, offset, length in adoptions])
        except MemoriesError:
            return  # `TierRestore` reports it.
        values = [(one[0], frame) for one, frame in zip(adoptions, frames, strict=True)]
        self.count += self._hierarchy.mover.batch.enter(values, target, Cause.RESTORED)


class TierRestore:
    """Moves the values of one restore: some at once, the rest in a thread of its own."""

    def __init__(
        self,
        hierarchy: Hierarchy,
        chain: IncrementalChain,
        since: int,
        *,
        imported: Latch,
        verified: bool = False,
        arrived: int = 0,
    ) -> None:
        """So many of the values have `arrived` in RAM before."""
        self._hierarchy = hierarchy
        self._chain = chain
        self._at_once = BATCH_KEYS
        self._steps = _steps(hierarchy, chain, since, verified, arrived, lambda: self._at_once)
        self._imported = imported
        self._thread: BackgroundThread | None = None
        self._stopped = False

    def run(self, max_bytes: int = MAX_BYTES, max_values: int = MAX_BYTES) -> bool:
        """Move up to so many bytes and values; return whether none is left."""
        while not self._stopped and max_bytes > 0 and max_values > 0:
            step = next(self._steps, None)
            if step is None:
                return True
            max_bytes -= step.nbytes
            max_values -= step.values
        return False

    def start(self) -> None:
        """Move the rest in the background; this ends by itself, or with the manager.

        It begins once no file is pending: values in the store can stay mapped.
        """
        self._thread = BackgroundThread(self._run, "restore")
        try:
            self._thread.start()
        except (RuntimeError, MemoryError) as error:
            logger.warning("restored values stay in their file: %s", error)
            self._thread = None

    def _run(self) -> None:
        while not (self._stopped or self._imported.wait(_POLL_SECONDS)):
            pass
        self._at_once = _AT_ONCE
        while not (self._stopped or self.run(max_values=1)):
            time.sleep(_PAUSE_SECONDS)

    def stop(self) -> None:
        """Move no more values, and close the files. Idempotent."""
        self._stopped = True
        if self._thread is None or self._thread.join_within(STOP_SECONDS):
            self._steps.close()
            self._chain.close()  # The generator does not, if no step was begun.
        else:
            logger.warning("a restored value is still being moved after %.0f s", STOP_SECONDS)


def _steps(
    hierarchy: Hierarchy,
    chain: IncrementalChain,
    since: int,
    verified: bool,
    arrived: int,
    at_once: Callable[[], int],
) -> Generator[_Step, None, None]:
    """Move values, and yield what each step was about; close the files at the end."""
    with chain:
        tiers = chain.top.tiers
        if tiers.total() == tiers[TierName.COLD] + arrived:
            return
        above = (row for row in chain.rows() if row.tier is not TierName.COLD)
        for rows in _groups(above, at_once):
            try:
                nbytes, left = 0, rows
                if len(rows) > 1:
                    run = hierarchy.operations.run
                    nbytes, left = run(_move_together, hierarchy, rows, since)
                for row in left:
                    nbytes += _move_alone(hierarchy, row, since, verified)
            except ClosedError:
                return
            yield _Step(nbytes, len(rows))
            if hierarchy.state is not LifecycleState.OPEN:
                return


def _groups(rows: Iterable[SnapshotRow], at_once: Callable[[], int]) -> Iterator[list[SnapshotRow]]:
    """Yield rows in their order: those of small values many together, each other one alone."""
    small, nbytes = list[SnapshotRow](), 0
    for row in rows:
        size = max(row.size, row.where.length)
        if small and (len(small) >= at_once() or nbytes + size > BATCH_BYTES):
            yield small
            small, nbytes = [], 0
        if size > MAX_VALUE:
            if small:
                yield small
                small, nbytes = [], 0
            yield [row]
        else:
            small.append(row)
            nbytes += size
    if small:
        yield small


def _move_together(
    hierarchy: Hierarchy, rows: list[SnapshotRow], since: int
) -> tuple[int, list[SnapshotRow]]:
    """Bring small values into RAM; return their bytes, and which ones are left."""
    room = {name: tier.budget.headroom for name, tier in hierarchy.tiers.volatile.items()}
    chosen, left = defaultdict[TierName, list[str]](list), list[SnapshotRow]()
    known = {row.key: row for row in rows}
    for row in rows:
        name = next((n for n in room if row.tier.rank <= n.rank and room[n] >= row.size), None)
        if name is None:
            left.append(row)
        else:
            room[name] -= row.size
            chosen[name].append(row.key)

    def is_restored(found: Record) -> bool:
        return _is_restored(found, known[found.key], since)

    nbytes = 0
    for name, keys in chosen.items():
        target = hierarchy.tiers.volatile[name]
        alone = hierarchy.mover.batch.load(keys, target, Cause.RESTORED, is_restored)
        left += [known[key] for key in alone]
        nbytes += sum([known[key].size for key in keys]) - sum([known[key].size for key in alone])
    return nbytes, left


def _move_alone(hierarchy: Hierarchy, row: SnapshotRow, since: int, verified: bool) -> int:
    """Move one value, and return its bytes."""
    try:
        return hierarchy.operations.run(_move, hierarchy, row, since, verified)
    except ClosedError:
        raise
    except MemoriesError as error:
        # The value stays where it is, and a read of it raises this error.
        now = hierarchy.clock.monotonic()
        hierarchy.events.emit(Failed(row.key, now, f"return to {row.tier}", error))
        return 0


def _move(hierarchy: Hierarchy, row: SnapshotRow, since: int, verified: bool) -> int:
    with hierarchy.locks.try_lock(row.key) as free:
        found = hierarchy.catalog.lookup(row.key) if free else None
        if not isinstance(found, Record) or not _is_restored(found, row, since):
            return 0  # It was read, replaced or removed meanwhile.
        target = _target(hierarchy, row)
        if target is None or target.name is found.tier:
            return 0
        try:
            if isinstance(target, VolatileTier) and target.device is None:
                _load(hierarchy, found, target, verified)
            else:
                hierarchy.mover.relocate(found, target, Cause.RESTORED)
        except TierFullError:
            return 0  # Another thread has used the room.
        return found.size


def _load(hierarchy: Hierarchy, found: Record, target: VolatileTier, verified: bool) -> None:
    """Put a value into RAM; a large one stays the mapping that it is, so that nothing is copied.

    Raises:
        TierFullError: the size in its frame exceeds the room, whatever the manifest says.
    """
    started = hierarchy.clock.monotonic()
    frame = hierarchy.durable(found.tier).read(found)
    if frame.host_size > target.budget.headroom:
        raise TierFullError(f"{found.key!r} takes {format_size(frame.host_size)} in {target.name}")
    copy = found.stored < LARGE_BYTES  # Larger ones are mapped.
    payload = frame.to_host(hierarchy.trust, verify=not verified, copy=copy)
    hierarchy.mover.put(payload, version_of(found), target, backed=found.tier)
    now = hierarchy.clock.monotonic()
    hierarchy.events.emit(
        Moved(found.key, now, found.tier, target.name, found.size, Cause.RESTORED, now - started)
    )


def _is_restored(found: Record, row: SnapshotRow, since: int) -> bool:
    return found.version > since and found.stored_at == row.stored_at


def _target(hierarchy: Hierarchy, row: SnapshotRow) -> AnyTier | None:
    """Return the tier that the value had, or the first one below it that has room."""
    if row.tier is TierName.GLACIER:
        return hierarchy.tiers.get(TierName.GLACIER)
    for name, tier in hierarchy.tiers.items():
        if row.tier.rank <= name.rank < TierName.COLD.rank and tier.budget.headroom >= row.size:
            return tier
    return None
