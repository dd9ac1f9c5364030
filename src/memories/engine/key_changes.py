"""Copies and renames keys, and changes what belongs to a key besides its value.

Every method holds the locks of its keys, like those of `Hierarchy`. No value is decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import msgspec

from memories.engine.hierarchy import Hierarchy
from memories.engine.operations import operation
from memories.engine.payload import Payload, host_payload
from memories.engine.tier import DurableTier
from memories.errors import InvalidOptionError, MemoriesError
from memories.model.entry import Entry
from memories.model.events import Removed, Stored
from memories.model.record import DEFAULT_TERMS, Record, Renaming, Terms, Version
from memories.model.tiers import Cause, TierName


class KeyChanges:
    """Changes keys of one hierarchy; their values stay as they are."""

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

    @operation
    def copy(self, key: str, new: str) -> None:
        """Store the value of `key` under `new` as well, in the same tier, with the same terms.

        It is durable if `key` is. What lay under `new` is replaced.

        Raises:
            KeyNotFoundError: `key` is in no tier.
            TierFullError: there is no room for another one.
        """
        hierarchy = self._hierarchy
        started = hierarchy.clock.monotonic()
        with self._locked(key, new):
            found, previous = self._both(key, new)
            if key == new:
                return
            payload = hierarchy.tiers.load(found)
            if isinstance(found, Entry) and list(payload.owners()):
                # Memory that two entries share would be charged until both are gone.
                payload = host_payload(payload.parts(hierarchy.trust))
            durable = hierarchy.catalog.record_under(found) is not None
            made = hierarchy.put_locked(
                new, payload, found.tier, found.terms, previous, durable=durable
            )
            now = hierarchy.clock.monotonic()
            hierarchy.events.emit(Stored(new, now, made.tier, made.size, now - started))

    @operation
    def rename(self, key: str, new: str) -> None:
        """Give the value of `key` the key `new`, in the place of what lay there.

        After a kill or an interrupt at any moment, one of the two keys has the value. Other
        threads and processes may see both for a moment, and never none.

        Raises:
            KeyNotFoundError: `key` is in no tier.
            TierFullError: a durable tier has no room for another one, which it needs until the old
                one is removed.
        """
        hierarchy = self._hierarchy
        with self._locked(key, new):
            found, previous = self._both(key, new)
            if key == new:
                return
            renames = hierarchy.mover.renames
            renames[new] = Renaming(key, hierarchy.catalog.table.version)
            try:
                self._rename(found, previous, new)
            except MemoriesError:
                hierarchy.mover.finish_rename(new)
                raise
            del renames[new]

    def _rename(self, found: Entry | Record, previous: Entry | Record | None, new: str) -> None:
        """Rename: first at rest, where that is one step, then in RAM."""
        hierarchy, catalog, mover = self._hierarchy, self._hierarchy.catalog, self._hierarchy.mover
        started = hierarchy.clock.monotonic()
        record, replaced = catalog.record_under(found), catalog.record_under(previous)
        gone, below = catalog.next_version(), catalog.next_version()
        version = Version(new, catalog.next_version(), found.stored_at, found.terms)
        made: Entry | Record | None = None
        target = self._durable_target(found, record, replaced, version)
        if target is not None:
            leaves = None if target.name is TierName.GLACIER else replaced
            with (
                mover.archive.removing(leaves, below),
                mover.archive.removing(record, gone),
                catalog.journal.renaming(new, found.key, gone) if record else nullcontext(),
            ):
                made = mover.write(hierarchy.tiers.load(found), version, target)
        if isinstance(found, Entry):
            tier = hierarchy.tiers.volatile[found.tier]
            backed = None if made is None else made.tier
            # The bytes stay charged: the new entry takes them over.
            payload = Payload.of_entry(found)
            made = tier.put(payload, version, hits=found.hits, backed=backed)
            made.stamp = found.stamp
            tier.victims.discard(found)
            catalog.rename(made, found)
            tier.victims.add(made, accessed=False)
        elif target is not None:
            target.victims.record_arrival(new)
        if isinstance(previous, Entry):
            if made is not catalog.entries.get(new):
                catalog.drop(previous)
            mover.release(previous)
        assert made is not None, "a value lies in RAM or at rest"
        self._emit(found, made, started)

    def _durable_target(
        self,
        found: Entry | Record,
        record: Record | None,
        replaced: Record | None,
        version: Version,
    ) -> DurableTier | None:
        """Return where the renamed version is written; None if it need not be durable."""
        hierarchy = self._hierarchy
        if record is not None:
            return hierarchy.durable(record.tier)
        if hierarchy.write_through or replaced is not None:
            return hierarchy.backing_tier(version)
        return None

    def _emit(self, found: Entry | Record, made: Entry | Record, started: float) -> None:
        hierarchy = self._hierarchy
        now = hierarchy.clock.monotonic()
        removed = Removed(found.key, now, found.tier, found.size, Cause.REMOVED)
        hierarchy.events.emit(removed)
        hierarchy.events.emit(Stored(made.key, now, made.tier, made.size, now - started))
        for tier in hierarchy.tiers.values():
            tier.victims.forget([found.key])

    @contextmanager
    def _locked(self, key: str, new: str) -> Iterator[None]:
        """Lock two keys; always in the same order, so that no two calls wait for each other."""
        first, second = sorted((key, new))
        with self._hierarchy.locks.lock(first), self._hierarchy.locks.lock(second):
            yield

    def _both(self, key: str, new: str) -> tuple[Entry | Record, Entry | Record | None]:
        """Return what lies under both keys, with all that happened to them reported."""
        hierarchy = self._hierarchy
        hierarchy.require_writable()
        hierarchy.expiry.end_listing()
        found, previous = hierarchy.lookup(key), hierarchy.catalog.lookup(new)
        entries = [one for one in (found, previous) if isinstance(one, Entry)]
        hierarchy.tiers.settle(entries, [key, new])
        return found, previous

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
