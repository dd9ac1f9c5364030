"""The short way to a small value in cold: one look-up, one read, one pass over its bytes.

Not a second truth: whatever is not plain at first sight (a key in RAM, a value that expires, one
that is large, compressed, damaged or just being moved) is left to the hierarchy's long way.
"""

from __future__ import annotations

from typing import Any, Final

from memories import codecs
from memories.codecs.registry import loaded
from memories.engine.catalog import Catalog
from memories.foundation.clock import Clock
from memories.foundation.keys import INTERNAL
from memories.frames.fast_path import MAX_BYTES, read_small
from memories.model.events import EventBus, Retrieved
from memories.model.tiers import TierName


class _Unknown:
    def __repr__(self) -> str:
        return "<ask the long way>"


UNKNOWN: Final = _Unknown()


class QuickReads:
    """Reads small values of the cold tier."""

    def __init__(self, catalog: Catalog, clock: Clock, events: EventBus) -> None:
        self._entries, self._journal = catalog.entries, catalog.journal
        self._monotonic, self._events = clock.monotonic, events

    def get(self, key: Any) -> Any:
        """Return the value of `key`, or UNKNOWN where the long way must find out."""
        started = self._monotonic()
        try:
            record = self._journal.lookup(key)
            if (
                record is None
                or record.tier is not TierName.COLD
                or record.stored > MAX_BYTES
                or record.terms.expires_at is not None
                or key in self._entries
                or key[0] == INTERNAL
            ):
                return UNKNOWN
            parts = read_small(self._journal.read(record), key)
            if parts is None:
                return UNKNOWN
            codec = loaded(parts.codec) or codecs.get(parts.codec)
            value = codec.decode(parts)
        except MemoryError:
            raise
        except Exception:
            # It is no key, or moved between the look-up and the read, or its parts do not fit
            # together, or the store is closed: the long way looks again, and says what is wrong.
            return UNKNOWN
        now = self._monotonic()
        self._events.note_read(Retrieved(key, now, record.tier, record.size, now - started, record))
        return value
