"""The cache backend of Django: what its own suite does not ask; that one is not in its wheel."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.forking import in_child

pytest.importorskip("django", reason="this is a cache of Django")

from memories.django import DjangoCache

SIZES = {"hot_memory_size": "1 MB", "warm_memory_size": "1 MB", "cold_memory_size": "20 MB"}


class Unpicklable:
    """An object that says that it cannot be pickled."""

    def __getstate__(self) -> Any:
        raise pickle.PickleError("not this one")


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[DjangoCache]:
    """Return a cache in a directory."""
    made = DjangoCache(str(tmp_path / "store"), {"OPTIONS": {**SIZES, "MAX_ENTRIES": 3}})
    yield made
    made.values.manager.cleanup()


def test_values_live_as_long_as_django_says(cache: DjangoCache) -> None:
    """Also None, which is for ever, and 0, which is at once."""
    cache.set("a", 1)
    assert 250 < cache.values.manager.info(":1:a").expires_at - _now(cache) < 301
    cache.set("a", 1, timeout=None)
    assert cache.values.manager.info(":1:a").expires_at is None
    assert cache.touch("a", 10) and not cache.touch("b", 10)
    cache.set("a", 1, timeout=0)
    assert cache.get("a", "absent") == "absent" and "a" not in cache
    assert cache.add("a", 1) and not cache.add("a", 2)
    assert 3 == cache.incr("a", 2) and cache.get("a") == 3
    with pytest.raises(ValueError, match="not in the cache"):
        cache.incr("b")
    assert cache.delete("a") and not cache.delete("a")


def _now(cache: DjangoCache) -> float:
    return float(cache.values.manager.info(":1:a").stored_at)


def test_the_size_is_in_bytes(cache: DjangoCache) -> None:
    """The number of entries is not limited; the oldest leave when the disk is full."""
    for number in range(60):
        cache.set(f"k{number}", os.urandom(1_000_000), timeout=None)
    assert 3 < sum(f"k{number}" in cache for number in range(60)) < 60
    cache.clear()
    assert 0 == len(cache.values.manager)


def test_errors_are_those_of_pickle(cache: DjangoCache) -> None:
    """Code of Django catches them."""
    with pytest.raises(pickle.PickleError):
        cache.set("a", Unpicklable())


def test_processes_share_a_location(cache: DjangoCache) -> None:
    """Workers of a server."""
    cache.set("a", "ours")
    assert "'ours'" == in_child(lambda: cache.get("a"))
    in_child(lambda: cache.set("b", "theirs"))
    assert "theirs" == cache.get("b")
