"""Keeps the results of decorated functions in the tiers of a manager."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from memories.core.value_writer import NewResult, ValueWriter
from memories.core.worker_results import WorkerResults
from memories.engine.hierarchy import Hierarchy
from memories.engine.payload import Payload
from memories.options.settings import check_tier


class Readable(Protocol):
    """What reads and removes results: a manager."""

    def retrieve(self, key: str, default: Any = ..., /) -> Any:
        """Return the value of `key`, or `default`; without one raise KeyNotFoundError."""

    def scan(self, prefix: str) -> Iterator[str]:
        """Yield the keys that start with `prefix`."""

    def get_tier(self, key: str) -> str:
        """Return the tier of `key`."""

    def exists(self, key: str) -> bool:
        """Return whether `key` is in any tier."""

    def delete_prefix(self, prefix: str) -> int:
        """Remove every key that starts with `prefix`."""


class TierResultStore:
    """A store of results. It keeps the manager alive, as long as the decorated function lives."""

    def __init__(
        self,
        manager: Readable,
        writer: ValueWriter,
        hierarchy: Hierarchy,
        worker_results: WorkerResults,
    ) -> None:
        self._hierarchy = hierarchy
        self._worker_results = worker_results
        # Attributes instead of methods: they save a call at each read of a result.
        self.retrieve: Callable[..., Any] = manager.retrieve
        self.scan = manager.scan
        self.get_tier = manager.get_tier
        self.delete_prefix = manager.delete_prefix
        self.exists = manager.exists
        self.store = writer.store_result

    def require_writable(self) -> None:
        """Raise unless results can be stored: in a forked child or a reader they cannot."""
        self._hierarchy.require_writable()

    def hand_over(
        self, key: str, payload: Payload, *, tier: str, ttl: float | None, seconds: float
    ) -> None:
        """In a forked child: let the parent store a result, which took `seconds` to compute."""
        self._worker_results.hand_over(NewResult(key, tier, ttl, seconds), payload)

    def require_tier(self, tier: str) -> None:
        """Raise InvalidOptionError unless there is a tier of that name."""
        self._hierarchy.tier(check_tier(tier))

    def open(self, payload: Payload) -> Any:
        """Return the value of a payload, as a read of it would."""
        return payload.open(self._hierarchy.trust)
