"""Promotes arrays and immutable values with the copy that a read has just made of them.

The read of a value that is not mapped has copied it into memory of its own. Where RAM has room for
it, or its policy prefers it to others, an entry takes that memory over, so that the next read finds
it: the background would come too late for a working set that moves, and would read it again, from
a bucket perhaps.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from memories.backends.base import LARGE_BYTES
from memories.engine.cold_reader import SLOW_BYTES
from memories.engine.hierarchy import Hierarchy
from memories.engine.lifecycle_state import LifecycleState
from memories.engine.payload import Payload
from memories.engine.recency import RecencyTracker
from memories.errors import MemoriesError
from memories.model.entry import Entry
from memories.model.record import Record
from memories.model.tiers import Cause, TierName

LARGER = 4  # No victim may be so many times as large: the reader waits until it has left.
_SHAREABLE = (np.ndarray, bytes, str)  # No reader can change what others share with it.


class ReadPromotion:
    """Moves values that were read in cold or glacier to warm, in the thread of the reader."""

    def __init__(self, hierarchy: Hierarchy, recency: RecencyTracker) -> None:
        self._hierarchy = weakref.ref(hierarchy)
        self._recency = recency

    def decides(self, record: Record, value: Any) -> bool:
        """Return whether `promote` decides about `value`, which was read by `record`.

        The migrator does about the others.
        """
        # To read a value in glacier once more is never worth it.
        least = SLOW_BYTES if record.tier is TierName.COLD else 0
        if not least <= record.size < LARGE_BYTES or type(value) not in _SHAREABLE:
            return False
        hierarchy = self._hierarchy()
        if hierarchy is None or hierarchy.state is not LifecycleState.OPEN:
            return False
        terms = record.terms
        return not (
            terms.pinned or not terms.admits(TierName.WARM) or hierarchy.catalog.rules.aging
        )

    def promote(self, record: Record, value: Any) -> None:
        """Promote `value`, which was read by `record`, if that is worth it.

        It waits for no other thread, and raises nothing that the read would have to raise.
        """
        hierarchy = self._hierarchy()
        if hierarchy is None:
            return
        warm = hierarchy.tiers.volatile[TierName.WARM]
        try:
            hits = self._recency.record_read(record.key)
            if not warm.admits(record.key, record.size, hits=hits):
                return

            def may_evict(victim: Entry | Record) -> bool:
                # To write a victim to cold takes about as long as its size.
                backed = isinstance(victim, Entry) and victim.backed is not None
                return backed or victim.size < LARGER * record.size

            # Its reads stay known: they keep it on the disk once it comes down again.
            hierarchy.try_move(
                record, TierName.WARM, Cause.HIT, may_evict=may_evict,
                payload=Payload.of_read(value),
            )  # fmt: skip
        except (MemoriesError, RecursionError):
            # There is no room, a signal handler reads in the middle of a change, the stack is
            # nearly used up, or a victim cannot be written, of which observers get an event. The
            # value stays in cold, and the migrator tries again after its next read.
            return
