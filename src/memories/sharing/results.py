"""Keeps the results of decorated functions in a shared store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from memories.core.value_reader import MISSING
from memories.engine.payload import Payload
from memories.options.settings import check_tier
from memories.sharing.computation_locks import ComputationLocks
from memories.sharing.membership import Membership


class SharedResultStore:
    """What `memoize` needs of a store, answered by the writer."""

    def __init__(self, manager: Any, membership: Membership) -> None:
        self._manager = manager
        self._membership = membership
        self.retrieve: Callable[..., Any] = manager.retrieve
        self.scan: Callable[..., Iterator[str]] = manager.scan

    @property
    def locks(self) -> ComputationLocks:
        """The locks on results that all processes see."""
        return self._membership.locks

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process it is answered by the writer, too."""
        return _results_of, (self._manager,)

    def retrieve_now(self, key: str, /) -> Any:
        """Leave every read to `retrieve`: it may ask the writer."""
        del key
        return MISSING

    def get_tier(self, key: str) -> str:
        """Return the tier of `key`."""
        tier: str = self._membership.call("get_tier", (key,), {})
        return tier

    def exists(self, key: str) -> bool:
        """Return whether `key` is in any tier."""
        return bool(self._membership.call("exists", (key,), {}))

    def delete_prefix(self, prefix: str) -> int:
        """Remove every key that starts with `prefix`."""
        return int(self._membership.call("delete_prefix", (prefix,), {}))

    def store(
        self, key: str, result: Any, *, tier: str, ttl: float | None, seconds: float, copy: bool
    ) -> Any:
        """Store a result that took `seconds` to compute, and return it as a read of it would."""
        payload = Payload.of(result, copy=copy)
        value = payload.open(self._membership.trust)
        options = {"tier": tier, "ttl": ttl, "seconds": seconds}
        self._membership.call("store_result", (key, value), options)
        return value

    def require_writable(self) -> None:
        """Every process that takes part may store results."""

    def hand_over(
        self, key: str, payload: Payload, *, tier: str, ttl: float | None, seconds: float
    ) -> None:
        """Nothing has to be handed over: see `require_writable`."""

    def require_tier(self, tier: str) -> None:
        """Raise InvalidOptionError unless there may be a tier of that name."""
        check_tier(tier)

    def open(self, payload: Payload) -> Any:
        """Return the value of a payload, as a read of it would."""
        return payload.open(self._membership.trust)


def _results_of(manager: Any) -> SharedResultStore:
    results: SharedResultStore = manager._results()
    return results
