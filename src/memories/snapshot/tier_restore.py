"""Values of a restored snapshot return to the tiers they had, one after the other.

Until its turn comes each is read from the adopted file, so nothing waits for this: it may be
stopped at any moment, and what cannot fit or cannot be read simply stays where it is.
"""

from __future__ import annotations

from collections.abc import Generator

from memories.backends.base import LARGE_BYTES
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

_LOOK_SECONDS = 0.05  # So often it looks whether it is to stop, while it waits.


class TierRestore:
    """Brings home what a restore adopted: some at once, the rest in a thread of its own."""

    def __init__(
        self,
        hierarchy: Hierarchy,
        chain: IncrementalChain,
        since: int,
        *,
        arrived: Latch,
        verified: bool = False,
    ) -> None:
        self._hierarchy = hierarchy
        self._chain = chain
        self._steps = _steps(hierarchy, chain, since, verified)
        self._arrived = arrived
        self._thread: BackgroundThread | None = None
        self._stopped = False

    def run(self, most_bytes: int = MAX_BYTES, most_values: int = MAX_BYTES) -> bool:
        """Bring home up to so many bytes and values; return whether all have come."""
        while not self._stopped and most_bytes > 0 and most_values > 0:
            step = next(self._steps, None)
            if step is None:
                return True
            most_bytes -= step
            most_values -= 1
        return False

    def start(self) -> None:
        """Bring home the rest in the background; it ends by itself, or with the manager.

        It begins once all that was lent lies in the store, where it can stay mapped.
        """
        self._thread = BackgroundThread(self._run, "restore")
        try:
            self._thread.start()
        except (RuntimeError, MemoryError) as error:
            logger.warning("what was restored stays in its file: %s", error)
            self._thread = None

    def _run(self) -> None:
        while not (self._stopped or self._arrived.wait(_LOOK_SECONDS)):
            pass
        self.run()

    def stop(self) -> None:
        """Bring no more home, and let go of the file. Idempotent."""
        self._stopped = True
        if self._thread is None or self._thread.join_within(STOP_SECONDS):
            self._steps.close()
            self._chain.close()  # Nobody else does where no step was begun.
        else:
            logger.warning("a restored value is still on its way after %.0f s", STOP_SECONDS)


def _steps(
    hierarchy: Hierarchy, chain: IncrementalChain, since: int, verified: bool
) -> Generator[int, None, None]:
    """Yield the bytes of each value that came home; closes the files at the end."""
    with chain:
        tiers = chain.top.tiers
        if tiers.total() == tiers[TierName.COLD]:
            return
        for row in chain.rows():
            if row.tier is TierName.COLD:
                continue
            try:
                yield hierarchy.operations.run(_bring_home, hierarchy, row, since, verified)
            except ClosedError:
                return
            except MemoriesError as error:
                # It stays where it is, and whoever reads it is told what is wrong with it.
                now = hierarchy.clock.monotonic()
                hierarchy.events.emit(Failed(row.key, now, f"return to {row.tier}", error))
            if hierarchy.state is not LifecycleState.OPEN:
                return


def _bring_home(hierarchy: Hierarchy, row: SnapshotRow, since: int, verified: bool) -> int:
    with hierarchy.locks.try_lock(row.key) as free:
        found = hierarchy.catalog.lookup(row.key) if free else None
        if not isinstance(found, Record) or not _is_restored(found, row, since):
            return 0  # Read, replaced or removed meanwhile: it has a place already.
        target = _home(hierarchy, row)
        if target is None or target.name is found.tier:
            return 0
        try:
            if isinstance(target, VolatileTier) and target.device is None:
                _take_in(hierarchy, found, target, verified)
            else:
                hierarchy.mover.relocate(found, target, Cause.RESTORED)
        except TierFullError:
            return 0  # Somebody else took the room.
        return found.size


def _take_in(hierarchy: Hierarchy, found: Record, target: VolatileTier, verified: bool) -> None:
    """Keep a value in RAM; a large one as the mapping that it is, so that nothing is copied.

    Raises:
        TierFullError: what its frame says it takes exceeds the room, whatever the manifest said.
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


def _home(hierarchy: Hierarchy, row: SnapshotRow) -> AnyTier | None:
    """Return the tier the value had, or the first below it that has room."""
    if row.tier is TierName.GLACIER:
        return hierarchy.tiers.get(TierName.GLACIER)
    for name, tier in hierarchy.tiers.items():
        if row.tier.rank <= name.rank < TierName.COLD.rank and tier.budget.headroom >= row.size:
            return tier
    return None
