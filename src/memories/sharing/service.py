"""What other processes may ask of the manager that has the store open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from memories.core.manager import MemoryManager
from memories.core.value_writer import NewResult
from memories.engine.payload import Payload
from memories.errors import InvalidOptionError
from memories.foundation.keys import check_key
from memories.model.tiers import TierName
from memories.options.metadata import unpack
from memories.sharing.change_count import ChangeCount

PAGE = 10_000  # Keys of one answer.

# Calls that change nothing: they are repeated when the writer is gone.
READS = frozenset({
    "retrieve", "retrieve_many", "read", "exists", "get_tier", "info", "count", "page", "found",
    "described", "volume",
})  # fmt: skip
CHANGES = frozenset({
    "store", "store_many", "store_result", "delete", "delete_many", "delete_prefix", "pop",
    "setdefault", "touch", "set_terms", "migrate", "promote", "demote", "pin", "unpin", "clear",
    "flush", "resize", "problems",
})  # fmt: skip


class Service:
    """Carries out calls by name on the one manager of the store."""

    def __init__(self, manager: MemoryManager, directory: Path) -> None:
        self.manager = manager
        self._count_of_changes = ChangeCount(directory, writes=True)
        self._count_of_changes.increment()  # What the writer before has changed and not counted.
        self.trust = manager._hierarchy.trust

    def call(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return what the call returns.

        Raises:
            InvalidOptionError: there is no such call.
            MemoriesError: what the call raises.
        """
        if name not in READS and name not in CHANGES:
            raise InvalidOptionError(f"call={name!r:.60} is none that another process may ask for")
        method = getattr(self, f"_{name}", None) or getattr(self.manager, name)
        if name in READS:
            return method(*args, **kwargs)
        try:
            return method(*args, **kwargs)
        finally:
            self._count_of_changes.increment()  # Also after an error: part of it may be done.

    def close(self) -> None:
        """Count no further change."""
        self._count_of_changes.close()

    def _read(self, key: str) -> tuple[Any, int]:
        """Return a value and its version, which belong together; version 0 if it is absent."""
        while True:
            if not self.manager.exists(key):
                return None, 0
            version = self.manager.info(key).version
            value = self.manager.retrieve(key)
            if self.manager.exists(key) and self.manager.info(key).version == version:
                return value, version

    def _count(self) -> int:
        return len(self.manager)

    def _page(self, prefix: str, delimiter: str | None, after: str) -> list[str]:
        """Return the next keys of a `scan`, behind the key `after`."""
        keys = self.manager.scan(prefix, delimiter)
        behind = after.encode()
        return list(islice((key for key in keys if key.encode() > behind), PAGE))

    def _found(self, metadata: Mapping[str, Any]) -> list[str]:
        return list(self.manager.find(**metadata))

    def _described(self) -> list[tuple[str, dict[str, Any], float | None]]:
        """Return all keys that have metadata, with it and the time when they expire, in order."""
        hierarchy = self.manager._hierarchy
        return [
            (found.key, unpack(found.terms.metadata), found.terms.expires_at)
            for found in hierarchy.catalog.described()
            if not hierarchy.expiry.has_expired(found)
        ]

    def _volume(self) -> int:
        """Return the bytes that the store takes on the disk."""
        return self.manager._hierarchy.tiers[TierName.COLD].account.used

    def _problems(self, repair: bool) -> list[str]:
        """Verify all values, and return what is wrong in words."""
        return [str(problem) for problem in self.manager.check(repair)]

    def _store_result(
        self, key: str, result: Any, *, tier: str, ttl: float | None, seconds: float
    ) -> None:
        """Store a result that another process has computed in `seconds`."""
        payload = Payload.of(result, copy=True)
        given = check_key(key), tier, ttl, seconds
        try:
            result_of = msgspec.convert(given, NewResult)
        except msgspec.ValidationError as error:
            raise InvalidOptionError(f"a result cannot be stored with {given!r:.200}") from error
        self.manager._writer.put_result(result_of, payload, of_worker=True)
