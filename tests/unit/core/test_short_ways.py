"""The reads from the front cache: the same compiled and interpreted, and counted one by one."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest

from memories import DistributedMemoryManager, MemoryManager
from memories.core.short_ways import ShortWays
from memories.engine.front_cache import EXACT_HITS, REQUESTS
from memories.errors import InvalidKeyError, InvalidOptionError, KeyNotFoundError
from memories.foundation.unchecked import Unchecked

THREADS = 8
READS = 5000


@pytest.fixture
def manager() -> Any:
    """Return a manager with an array and some bytes, both read often enough to be in front."""
    with MemoryManager(0.001, 0.01, 0.01, migration=False, prefetch="off") as made:
        for key, value in {"array": np.arange(5), "bytes": b"some"}.items():
            made.store(key, value)
            for _ in range(EXACT_HITS + REQUESTS):
                made.retrieve(key)
        yield made


def test_the_values_come_from_the_front(manager: MemoryManager) -> None:
    """Otherwise the other tests here would show nothing."""
    assert isinstance(manager, ShortWays)
    assert {"array", "bytes"} == set(manager._at_front)
    before = manager._front.hits
    assert b"some" == manager["bytes"]
    assert b"some" == manager.retrieve("bytes")
    assert before + 2 == manager._front.hits


def test_every_reader_gets_a_view_of_its_own(manager: MemoryManager) -> None:
    """A caller may change the shape of what it got."""
    first, second = manager["array"], manager.retrieve("array")
    first.shape = (5, 1)
    assert (5,) == second.shape == manager["array"].shape
    assert not first.flags.writeable


def hits(manager: MemoryManager) -> int:
    """Return the hits of all tiers."""
    return sum(tier.hits for tier in manager.stats().tiers.values())


def test_threads_lose_no_count(manager: MemoryManager) -> None:
    """The hit rate is exact, whatever the number of threads."""
    before, interval = hits(manager), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def read() -> None:
        for _ in range(READS):
            manager.retrieve("bytes")
            manager["array"]

    threads = [threading.Thread(target=read) for _ in range(THREADS)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert before + 2 * THREADS * READS == hits(manager)


@pytest.mark.parametrize("key", [1, None, b"bytes", ["list"], 1.5])
def test_a_key_of_another_type_raises_our_error(manager: MemoryManager, key: Any) -> None:
    """The compiler would raise a TypeError of its own."""
    with pytest.raises(InvalidKeyError):
        manager.retrieve(key)
    with pytest.raises(InvalidKeyError):
        manager[key]


@pytest.mark.parametrize(
    "options", [{"device": 5}, {"like": 5}, {"timeout": "soon"}, {"timeout": -1}]
)
def test_an_invalid_option_raises_our_error(manager: MemoryManager, options: Any) -> None:
    """It names the option."""
    with pytest.raises(InvalidOptionError, match=next(iter(options))):
        manager.retrieve("array", **options)


def test_an_option_may_have_any_type_that_its_check_allows(manager: MemoryManager) -> None:
    """An int is a number of seconds, and a default may be anything."""
    assert 3 == manager.retrieve("absent", 3, timeout=2)
    assert None is manager.retrieve("absent", None)
    assert 5 == len(manager.retrieve("array", copy=True, timeout=None))
    with pytest.raises(KeyNotFoundError):
        manager.retrieve("absent")
    with pytest.raises(TypeError):
        manager.retrieve()  # type: ignore[call-arg]


def test_a_subclass_may_answer_itself(tmp_path: Path) -> None:
    """The managers are made to be derived from."""

    class Counting(MemoryManager):
        def retrieve(self, key: str, *options: Any, **more: Any) -> Any:
            return "before", super().retrieve(key, *options, **more)

        def __getitem__(self, key: str) -> Any:
            return "item", super().__getitem__(key)

    with Counting(0.001, 0.01, 0.01) as manager:
        manager.store("a", 1)
        assert ("before", 1) == manager.retrieve("a")
        assert ("item", 1) == manager["a"]
        assert [("a", ("before", 1))] == list(manager.items())
    assert issubclass(DistributedMemoryManager, ShortWays)


def test_the_types_of_parameters_can_be_read() -> None:
    """A tool that reads annotations finds the type behind `Unchecked`."""

    def read(key: Unchecked[str], timeout: Unchecked[float | None] = None) -> Any: ...

    assert {"key": str, "timeout": float | None, "return": Any} == get_type_hints(read)
