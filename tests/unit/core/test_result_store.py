"""A cached function needs no manager: any store of results will do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from memories.core.memoize import CacheInfo, memoize
from memories.engine.payload import Payload
from memories.errors import KeyNotFoundError, StorageError

ABSENT = object()


class DictResults:
    """Keeps results in a dict."""

    locks = None

    def __init__(self, *, writable: bool = True) -> None:
        self.kept: dict[str, Any] = {}
        self.handed_over: dict[str, Payload] = {}
        self._writable = writable

    def retrieve(self, key: str, default: Any = ABSENT, /) -> Any:
        """Return a result."""
        if key not in self.kept and default is ABSENT:
            raise KeyNotFoundError(key)
        return self.kept.get(key, default)

    def scan(self, prefix: str) -> Iterator[str]:
        """Yield keys."""
        return iter([key for key in self.kept if key.startswith(prefix)])

    def get_tier(self, key: str) -> str:
        """Return the only tier."""
        return "dict"

    def delete_prefix(self, prefix: str) -> int:
        """Remove keys."""
        keys = list(self.scan(prefix))
        for key in keys:
            del self.kept[key]
        return len(keys)

    def exists(self, key: str) -> bool:
        """Return whether there is a result."""
        return key in self.kept

    def store(self, key: str, result: Any, **_: Any) -> Any:
        """Store a result."""
        self.kept[key] = result
        return result

    def hand_over(self, key: str, payload: Payload, /, **_: Any) -> None:
        """Keep what another process is to store."""
        self.handed_over[key] = payload

    def require_writable(self) -> None:
        """Raise if the dict is read-only."""
        if not self._writable:
            raise StorageError("read-only")

    def require_tier(self, tier: str) -> None:
        """Accept any tier."""

    def open(self, payload: Payload) -> Any:
        """Return the value of an immutable payload."""
        return payload.content


def test_results_are_computed_once_and_counted() -> None:
    """The second call finds what the first one stored."""
    calls: list[int] = []
    results = DictResults()

    def double(x: int) -> int:
        calls.append(x)
        return 2 * x

    cached = memoize(results, double)
    assert [4, 4, 6] == [cached(2), cached(2), cached(3)]
    assert [2, 3] == calls
    assert CacheInfo(hits=1, misses=2, results=2, tiers={"dict": 2}) == cached.cache_info()
    cached.cache_clear()
    assert {} == results.kept
    assert 4 == cached(2)


def test_a_store_that_cannot_be_written_still_returns_results() -> None:
    """As in a reader, or in a forked child."""
    results = DictResults(writable=False)
    assert 4 == memoize(results, lambda x: 2 * x)(2)
    assert {} == results.kept
    assert [4] == [results.open(payload) for payload in results.handed_over.values()]


def test_errors_are_not_stored() -> None:
    """The next call computes again."""
    results = DictResults()

    def fail(x: int) -> int:
        raise ZeroDivisionError(x)

    cached = memoize(results, fail)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            cached(1)
    assert {} == results.kept
