"""Keeps results in a manager that need not be there yet when their function is defined."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from memories.core.result_contract import ResultLocks, ResultStore
from memories.engine.payload import Payload
from memories.options.settings import check_tier


class LateResults:
    """A store of results in the manager that `find` returns at the time of each call."""

    def __init__(self, find: Callable[[], Any]) -> None:
        self._find = find

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process it is the manager that is found there."""
        return LateResults, (self._find,)

    def _results(self) -> ResultStore:
        results: ResultStore = self._find()._results()
        return results

    @property
    def locks(self) -> ResultLocks | None:
        """What other processes that store results look at; None where there are none."""
        return self._results().locks

    def retrieve(self, key: str, default: Any, /, **options: Any) -> Any:
        """Return the result of `key`, or `default`."""
        return self._find().retrieve(key, default, **options)

    def retrieve_now(self, key: str, /) -> Any:
        """Return the result of `key` if RAM has it at hand, else `MISSING`."""
        return self._results().retrieve_now(key)

    def scan(self, prefix: str) -> Iterator[str]:
        """Yield the keys that start with `prefix`."""
        return self._results().scan(prefix)

    def get_tier(self, key: str) -> str:
        """Return the tier that holds the result of `key`."""
        return self._results().get_tier(key)

    def delete_prefix(self, prefix: str) -> int:
        """Remove every key that starts with `prefix`."""
        return self._results().delete_prefix(prefix)

    def exists(self, key: str) -> bool:
        """Return whether there is a result of `key`."""
        return self._results().exists(key)

    def store(self, key: str, result: Any, **options: Any) -> Any:
        """Store a result, and return it as later reads will."""
        return self._results().store(key, result, **options)

    def hand_over(self, key: str, payload: Payload, /, **options: Any) -> None:
        """Let the process that opened the store keep a result."""
        self._results().hand_over(key, payload, **options)

    def require_writable(self) -> None:
        """Raise unless results can be stored."""
        self._results().require_writable()

    def require_tier(self, tier: str) -> None:
        """Accept every tier that there may be: the manager is found at the first call."""
        check_tier(tier)

    def open(self, payload: Payload) -> Any:
        """Return the value of a payload, as a read of it would."""
        return self._results().open(payload)
