"""Keeps the results of decorated functions in the tiers of a manager."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from memories.core.manager_handle import ManagerHandle, handle_of, open_handle
from memories.core.pickled_reader import is_unopened
from memories.core.value_reader import MISSING
from memories.core.value_writer import NewResult, ValueWriter
from memories.core.worker_results import WorkerResults
from memories.engine.hierarchy import Hierarchy
from memories.engine.payload import Payload
from memories.errors import KeyNotFoundError
from memories.frames.signing import default
from memories.options.settings import check_tier


class TierResultStore:
    """A store of results. It keeps the manager alive, as long as the decorated function lives."""

    def __init__(
        self,
        manager: Any,
        writer: ValueWriter,
        hierarchy: Hierarchy,
        worker_results: WorkerResults,
    ) -> None:
        self._manager = manager
        self._hierarchy = hierarchy
        self._worker_results = worker_results
        self.locks = None  # No other process stores results.
        # Attributes instead of methods: they save a call at each read of a result.
        self.retrieve: Callable[..., Any] = manager.retrieve
        self.retrieve_now: Callable[[str], Any] = manager._retrieve_now
        self.scan = manager.scan
        self.get_tier = manager.get_tier
        self.delete_prefix = manager.delete_prefix
        self.exists = manager.exists
        self.store = writer.store_result

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the store of the same manager here, of a reader of its directory elsewhere.

        Where neither can be had, results are computed and not kept.
        """
        return _open_results, (handle_of(self._manager, flush=False),)

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


class NoResultStore:
    """Keeps nothing: for a function that was sent to a process that cannot open the store."""

    def __init__(self) -> None:
        self._trust = default()
        self.locks = None

    def __reduce__(self) -> tuple[Any, ...]:
        return NoResultStore, ()

    def retrieve(self, key: str, default: Any, /, **options: Any) -> Any:
        """Return `default`."""
        del key, options
        return default

    def retrieve_now(self, key: str, /) -> Any:
        """Return `MISSING`."""
        del key
        return MISSING

    def scan(self, prefix: str) -> Iterator[str]:
        """Yield nothing."""
        del prefix
        return iter(())

    def get_tier(self, key: str) -> str:
        """Raise KeyNotFoundError."""
        raise KeyNotFoundError(f"{key[:200]!r} is in no tier")

    def delete_prefix(self, prefix: str) -> int:
        """Return 0."""
        del prefix
        return 0

    def exists(self, key: str) -> bool:
        """Return False."""
        del key
        return False

    def store(self, key: str, result: Any, **options: Any) -> Any:
        """Return the result as a read would return it elsewhere."""
        del key
        return self.open(Payload.of(result, copy=options["copy"]))

    def require_writable(self) -> None:
        """Let results be stored: they are not kept."""

    def require_tier(self, tier: str) -> None:
        """Accept every tier that there may be."""
        check_tier(tier)

    def hand_over(self, key: str, payload: Payload, **options: Any) -> None:
        """Do nothing."""

    def open(self, payload: Payload) -> Any:
        """Return the value of a payload."""
        return payload.open(self._trust)


def _open_results(handle: ManagerHandle) -> TierResultStore | NoResultStore:
    """Return the store of results of the manager of a handle."""
    manager = open_handle(handle)
    return NoResultStore() if is_unopened(manager) else manager._results()
