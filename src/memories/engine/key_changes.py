"""Changes what belongs to a key besides its value: its terms, and when it was used.

Every method holds the lock of its keys, like those of `Hierarchy`.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from memories.engine.hierarchy import Hierarchy
from memories.engine.operations import operation
from memories.errors import InvalidOptionError
from memories.model.entry import Entry
from memories.model.record import DEFAULT_TERMS, Terms


class KeyChanges:
    """Changes keys of one hierarchy without touching their values."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.operations = hierarchy.operations
        self._hierarchy = hierarchy

    @operation
    def set_terms(self, key: str, change: Callable[[Terms], Terms]) -> None:
        """Replace the terms of `key`, durably where it is durable.

        Raises:
            KeyNotFoundError: it is in no tier.
            InvalidOptionError: the new terms forbid the tier in which it is.
        """
        hierarchy, catalog = self._hierarchy, self._hierarchy.catalog
        with hierarchy.locks.lock(key):
            hierarchy.require_writable()
            found = hierarchy.lookup(key)
            terms = change(found.terms)
            if terms == found.terms:
                return
            if terms == DEFAULT_TERMS:
                terms = DEFAULT_TERMS  # The short way knows it by identity.
            if not terms.admits(found.tier):
                raise InvalidOptionError(
                    f"{key[:200]!r} is in {found.tier}, which min_tier={terms.min_tier or 'hot'} "
                    f"and max_tier={terms.max_tier or 'glacier'} forbid; migrate it first"
                )
            hierarchy.tiers.settle([found] if isinstance(found, Entry) else [], [key])
            record = catalog.record_under(found)
            if record is not None:
                hierarchy.mover.archive.amend(msgspec.structs.replace(record, terms=terms))
            if isinstance(found, Entry):
                hierarchy.mover.replace_terms(found, terms)

    def mark_used(self, key: str) -> None:
        """Take note that `key` is used now, as if it had been read.

        Raises:
            KeyNotFoundError: it is in no tier.
        """
        self._hierarchy.require_writable()
        found = self._hierarchy.lookup(key)
        if isinstance(found, Entry):
            found.mark()
        else:
            self._hierarchy.tiers[found.tier].victims.record_arrival(key)
