"""Reads values that are not in the front cache: from RAM, from a durable tier, or with options."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from memories.core.read_options import ReadOptions
from memories.engine.batch_read import read_together, restore
from memories.engine.front_cache import EXACT_HITS, KINDS
from memories.errors import UNREADABLE, ArchivedError, KeyNotFoundError, about_key
from memories.foundation.keys import check_key

if TYPE_CHECKING:
    from memories.devices import Device
    from memories.engine.hierarchy import Hierarchy

T = TypeVar("T")


class _Missing:
    def __repr__(self) -> str:
        return "<raise KeyError>"


MISSING: Final = _Missing()


class ValueReader:
    """Reads values of one hierarchy; `device` is the GPU of its hot tier, if it has one."""

    def __init__(self, hierarchy: Hierarchy, device: Device | None) -> None:
        self.front = hierarchy.catalog.front
        self._hierarchy = hierarchy
        self.entries = hierarchy.catalog.entries
        self.request_front = hierarchy.catalog.request_front
        self._device = device

    def read(self, key: str, default: Any = MISSING) -> Any:
        """Return a value; one that is read often answers from the front cache from then on.

        The short way from cold (`ColdReader`) was tried before, or is not worth it.
        """
        try:
            entry = self.entries.get(key)
        except TypeError:
            entry = None  # An unhashable object, which `check_key` refuses.
        if entry is not None:
            try:
                value = entry.read()
            except UNREADABLE as error:
                raise about_key(error, key) from error.__cause__
            except KeyError:
                pass  # It has expired, and `Hierarchy.read` removes it.
            else:
                if entry.hits > EXACT_HITS and type(entry) in KINDS:
                    self.request_front(key)
                return value
        try:
            return self._hierarchy.read(check_key(key))
        except KeyNotFoundError:
            if default is MISSING:
                raise
            return default

    def exists(self, key: str) -> bool:
        """Return whether a key is in any tier and has not expired."""
        try:
            self._hierarchy.lookup(key)
        except KeyNotFoundError:
            return False
        return True

    def read_listed(self, key: str, depth: int) -> Any:
        """Return a value for the caller `depth` frames up, perhaps one that it listed before.

        `dict(manager)` lists the keys first: a key that expires meanwhile is still read.
        """
        try:
            return self.read(key)
        except KeyNotFoundError:
            moment = self._hierarchy.expiry.moment(sys._getframe(depth))
            if moment is None:
                raise
            return self._hierarchy.read(key, moment=moment)

    def read_as(self, key: str, default: Any, options: ReadOptions, timeout: float | None) -> Any:
        """Return a value as `options` ask for it; wait `timeout` seconds for an archived one."""
        key = check_key(key)
        try:
            return self._restored([key], timeout, lambda: self._read(key, options))
        except KeyNotFoundError:
            if default is MISSING:
                raise
            return default

    def read_many(self, keys: list[str], timeout: float | None) -> dict[str, Any]:
        """Return the values of `keys`; wait `timeout` seconds for archived ones."""
        return self._restored(keys, timeout, lambda: read_together(self._hierarchy, keys))

    def find(self, matches: Callable[[Mapping[str, Any]], bool]) -> Iterator[str]:
        """Yield the keys whose metadata matches, in order; keys without any are passed over."""
        self._hierarchy.require_readable()
        for found in self._hierarchy.catalog.described():
            if matches(found.terms.metadata) and not self._hierarchy.expiry.has_expired(found):
                yield found.key

    def _read(self, key: str, options: ReadOptions) -> Any:
        if options.are_defaults:
            return self._hierarchy.read(key)
        trust, device = self._hierarchy.trust, self._device
        return self._hierarchy.read(
            key,
            lambda payload, verify: options.apply(key, payload, verify, trust, device),
            whole=options.whole,
        )

    def _restored(self, keys: Iterable[str], timeout: float | None, read: Callable[[], T]) -> T:
        """Return `read()`; where values are archived, restore them first if there is a timeout."""
        try:
            return read()
        except ArchivedError:
            if timeout is None:
                raise
        restore(self._hierarchy, keys, timeout)
        return read()
