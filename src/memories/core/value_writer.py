"""Stores, moves, replaces and removes values; changes of a value hold the lock of its key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import msgspec

from memories.codecs import ALWAYS_SHARED, main_classes
from memories.core.read_options import ReadOptions
from memories.core.services import Services
from memories.core.value_reader import MISSING, ValueReader
from memories.engine.batch_write import BATCH_BYTES, BATCH_KEYS, MAX_VALUE, NewValue
from memories.engine.key_changes import KeyChanges
from memories.engine.payload import Payload
from memories.errors import InvalidOptionError, KeyNotFoundError
from memories.foundation.keys import check_key
from memories.model.record import DEFAULT_TERMS, Terms
from memories.model.rules import Rule
from memories.model.tiers import Cause, Form, TierName
from memories.options.settings import check_tier
from memories.options.store_terms import change_terms, make_terms

T = TypeVar("T")
_new = tuple.__new__  # What a named tuple does, without its argument parsing.
LARGE_RESULT = 1 << 16  # From this size on it is worth to ask what keeping a result costs.
_PRIVATE_COPY = ReadOptions(copy=True)


class NewResult(msgspec.Struct, frozen=True, array_like=True):
    """What is to be stored with a result.

    Attributes:
        seconds: What it took to compute.
    """

    key: str
    tier: str
    ttl: float | None
    seconds: float


class ValueWriter:
    """Changes values in the tiers of one manager; every key was checked before."""

    def __init__(self, services: Services, reader: ValueReader) -> None:
        self._services = services
        self._hierarchy = services.hierarchy
        self._changes = KeyChanges(services.hierarchy)
        self._reader = reader
        self._targets = {str(name): name for name in services.hierarchy.tiers}

    def store(
        self,
        key: str,
        data: Any,
        tier: str = "auto",
        *,
        ttl: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        pin: bool = False,
        min_tier: str | None = None,
        max_tier: str | None = None,
        volatile: bool = False,
        copy: bool = True,
        if_version: int | None = None,
        evictable: bool = False,
    ) -> None:
        """Store a value; `MemoryManager.store` describes the options."""
        rule = self._hierarchy.catalog.rules.rule_for(key)
        if rule is not None and tier == "auto":
            tier = rule.tier or tier
        target = self._target(tier)
        terms = make_terms(
            ttl=ttl, metadata=metadata, pin=pin, min_tier=min_tier, max_tier=max_tier,
            evictable=evictable, now=self._services.clock.wall, rule=rule,
        )  # fmt: skip
        if if_version is not None and (type(if_version) is not int or if_version < 0):
            raise InvalidOptionError(
                f"if_version={if_version!r} must be a version, or 0 for absent"
            )
        if not self._hierarchy.residency.open:
            self._hierarchy.require_writable()
        durable = target is not None and target.durable
        # A durable tier has written the value before this returns, so it needs no copy in RAM.
        borrow = copy and durable
        payload = self._services.payload_of(key, data, copy=copy, borrow=borrow)
        if (
            not durable
            and terms is DEFAULT_TERMS
            and not volatile
            and if_version is None
            and payload.form is Form.HOST
            and self._hierarchy.residency.put(
                key, payload.entry_type, payload.content, payload.size, tier
            )
        ):
            return
        self._hierarchy.put(
            key,
            payload,
            tier=target,
            terms=terms,
            volatile=volatile,
            if_version=if_version,
        )

    def store_many(
        self, values: Mapping[str, Any], tier: str, store: Callable[[str, Any, Any], None]
    ) -> None:
        """Store many values, those for cold together; those before one that fails are stored.

        Args:
            values: The values by key.
            tier: Where they are stored.
            store: Stores one value in a tier, where they are not stored together.
        """
        done = 0
        try:
            if type(values) is dict and self._takes_batches(tier):
                for count in self._store_batches(values, tier):
                    done += count
                return
            for key, data in values.items():
                store(key, data, tier)
                done += 1
        except Exception as error:
            key = next(islice(values, done, None), "")
            error.add_note(
                f"the first {done} of {len(values)} values are stored, {key!r:.200} failed, and "
                "those after it were not tried"
            )
            raise

    def store_result(
        self, key: str, result: Any, *, tier: str, ttl: float | None, seconds: float, copy: bool
    ) -> Any:
        """Store what can be computed again in `seconds`, and return it as a read of it would.

        It may be dropped for room, whatever `on_full` says. A large one that takes less time than
        to write it to cold and to read it once stays in RAM, unless a tier was named.
        """
        self._hierarchy.require_writable()
        payload = self._services.payload_of(key, result, copy=copy)
        self.put_result(NewResult(key, tier, ttl, seconds), payload)
        if payload.form is Form.HOST:
            return payload.open(self._hierarchy.trust)
        return self._reader.read(key, MISSING)

    def put_result(self, result: NewResult, payload: Payload, *, of_worker: bool = False) -> None:
        """Store the payload of a result, as `store_result` does.

        One `of_worker` gets a copy in cold in any case: workers that were forked before find it.
        """
        key, target = result.key, self._target(result.tier)
        terms = make_terms(
            ttl=result.ttl, metadata=None, pin=False, min_tier=None, max_tier=None,
            now=self._services.clock.wall,
        )  # fmt: skip
        stays = target is None and self._is_cheaper_to_compute(payload, result.seconds)
        max_tier = TierName.WARM if stays else None
        terms = msgspec.structs.replace(terms, evictable=True, max_tier=max_tier)
        self._hierarchy.put(key, payload, tier=target, terms=terms)
        if target is None and not stays and (of_worker or self._services.saves_at_end):
            self._services.write_behind.request(key)

    def clear(self, *, purge: bool) -> None:
        """Remove every key; with `purge` unlink the archived objects at once."""
        self._hierarchy.operations.run(self._clear, purge)

    def move_by(self, key: str, step: int) -> TierName:
        """Move a key up (-1) or down (1) to the next tier, and return its tier.

        Tiers that its terms forbid are passed over; the move fails if they forbid all of them.
        """
        names = list(self._hierarchy.tiers)
        found = self._hierarchy.lookup(key)
        index = names.index(found.tier)
        further = names[index + 1 :] if step > 0 else names[:index][::-1]
        if further:
            allowed = (name for name in further if found.terms.admits(name))
            self._hierarchy.move(key, next(allowed, further[0]), Cause.EXPLICIT)
        return self._hierarchy.lookup(key).tier

    def set_pinned(self, key: str, pinned: bool) -> None:
        """Forbid, or allow, moving and evicting a key."""
        self._changes.set_terms(key, lambda terms: msgspec.structs.replace(terms, pinned=pinned))

    def set_terms(self, key: str, options: Mapping[str, Any]) -> None:
        """Replace those terms of a key that `options` names; see `KeyCalls.set_terms`."""
        given = {name: value for name, value in options.items() if value is not ...}
        self._changes.set_terms(
            key, lambda terms: change_terms(terms, given, self._services.clock.wall)
        )

    def copy(self, key: str, new: str) -> None:
        """Store the value of a key under another one as well."""
        self._changes.copy(key, new)

    def rename(self, key: str, new: str) -> None:
        """Give the value of a key another one."""
        self._changes.rename(key, new)

    def touch(self, key: str, ttl: float | None) -> None:
        """Take note that a key is used now; with a ttl, it lives so long from now on."""
        if ttl is not None:
            self.set_terms(key, {"ttl": ttl})
        self._changes.mark_used(key)

    def modify(self, key: str, fn: Callable[[Any], T]) -> T:
        """Replace a value by `fn(value)`, and return it."""
        return self._hierarchy.operations.run(self._modify, key, fn)

    def pop(self, key: str, default: Any) -> Any:
        """Remove a key, and return its value."""
        return self._hierarchy.operations.run(self._pop, key, default)

    def setdefault(self, key: str, default: Any) -> Any:
        """Return the value of a key; store `default` first if it is absent."""
        return self._hierarchy.operations.run(self._setdefault, key, default)

    def _is_cheaper_to_compute(self, payload: Payload, seconds: float) -> bool:
        """Return whether a large result is better computed again than kept in cold."""
        size = payload.host_size
        if size < LARGE_RESULT or size > self._hierarchy.tiers[TierName.WARM].budget.effective:
            return False
        return seconds < self._services.fetch_costs.keeping(size)

    def _target(self, tier: str) -> TierName | None:
        known = self._targets.get(tier) if isinstance(tier, str) else None
        if known is not None or tier == "auto":
            return known
        return self._hierarchy.tier(check_tier(tier)).name

    def _value_for_cold(self, key: str, data: Any, tier: str) -> NewValue | None:
        """Return a value that is to be stored in cold, None for another tier or a large value."""
        rule = self._hierarchy.catalog.rules.rule_for(key)
        if rule is not None and tier == "auto":
            tier = rule.tier or tier
        if tier != "cold":
            return None
        kind = type(data)
        payload = Payload.of_object(data) if kind in ALWAYS_SHARED else Payload.borrowed(data)
        if payload.size > MAX_VALUE:
            return None
        terms = DEFAULT_TERMS if rule is None else self._rule_terms(rule)
        return _new(NewValue, (key, payload, terms))

    def _rule_terms(self, rule: Rule) -> Terms:
        return make_terms(
            ttl=None, metadata=None, pin=False, min_tier=None, max_tier=None,
            now=self._services.clock.wall, rule=rule,
        )  # fmt: skip

    def _takes_batches(self, tier: str) -> bool:
        """Return whether `_store_batches` would write at least some keys together."""
        rules = self._hierarchy.catalog.rules
        return tier == "cold" or (tier == "auto" and rules.names_tier("cold"))

    def _store_batches(self, values: dict[str, Any], tier: str) -> Iterator[int]:
        """Store many values, those for cold together; yield how many more are stored."""
        self._hierarchy.require_writable()
        batch, nbytes = list[NewValue](), 0
        unruled = tier == "cold" and not self._hierarchy.catalog.rules
        with main_classes.collect_names() as names:
            for key, data in values.items():
                try:
                    value: NewValue | None
                    if unruled and type(data) in ALWAYS_SHARED:  # Most values, in fewer calls.
                        payload = Payload.of_object(data)
                        value = _new(NewValue, (check_key(key), payload, DEFAULT_TERMS))
                        size = payload.size
                        if size > MAX_VALUE:
                            value = None
                    else:
                        value = self._value_for_cold(check_key(key), data, tier)
                        size = 0 if value is None else value.payload.size
                except Exception:
                    yield from self._put_batch(batch)  # These come before the value that fails.
                    raise
                if value is None or nbytes + size > BATCH_BYTES:
                    yield from self._put_batch(batch)
                    batch, nbytes = [], 0
                if value is None:
                    self.store(key, data, tier)
                    yield 1
                    continue
                if names and self._services.outlives_process:
                    main_classes.warn_about(key, names)
                batch.append(value)
                nbytes += size
                if len(batch) == BATCH_KEYS:
                    yield from self._put_batch(batch)
                    batch, nbytes = [], 0
        yield from self._put_batch(batch)

    def _put_batch(self, values: Sequence[NewValue]) -> Iterator[int]:
        """Store values in cold, one by one where that cannot be done together."""
        while values:
            done = self._hierarchy.put_batch(values)
            yield done
            # A value that was busy, archived or refused is stored alone, or raises. Where the
            # first one was it, the others are too: the store may be full.
            alone = values[done : done + 1] if done else values
            for value in alone:
                self._hierarchy.put(value.key, value.payload, tier=TierName.COLD, terms=value.terms)
                yield 1
            values = values[done + len(alone) :]

    def _clear(self, purge: bool) -> None:
        version = self._hierarchy.clear()
        if purge and self._services.purge_archive is not None:
            self._services.purge_archive(version)

    def _modify(self, key: str, fn: Callable[[Any], T]) -> T:
        with self._hierarchy.locks.lock(key):
            found = self._hierarchy.lookup(key)
            value = self._hierarchy.operations.call_user(fn, self._private_copy(key))
            payload = self._services.payload_of(key, value)
            self._hierarchy.put(key, payload, tier=found.tier, terms=found.terms)
        return value

    def _pop(self, key: str, default: Any) -> Any:
        with self._hierarchy.locks.lock(key):
            try:
                value = self._private_copy(key)
            except KeyNotFoundError:
                if default is MISSING:
                    raise
                return default
            try:
                self._hierarchy.remove(key)
            except KeyNotFoundError:
                pass  # It has expired since it was read.
        return value

    def _setdefault(self, key: str, default: Any) -> Any:
        with self._hierarchy.locks.lock(key):
            try:
                self._hierarchy.lookup(key)
            except KeyNotFoundError:
                self.store(key, default)
            return self._reader.read(key, default)

    def _private_copy(self, key: str) -> Any:
        return self._reader.read_as(key, MISSING, _PRIVATE_COPY, None)
