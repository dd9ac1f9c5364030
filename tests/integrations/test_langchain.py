"""The store and the cache of LangChain: langchain-tests' standard tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from memories import InvalidKeyError, InvalidOptionError, MemoryManager

pytest.importorskip("langchain_tests", reason="these are its tests")

from langchain_core.outputs import Generation
from langchain_tests.integration_tests.base_store import BaseStoreAsyncTests, BaseStoreSyncTests
from langchain_tests.integration_tests.cache import AsyncCacheTestSuite, SyncCacheTestSuite

from memories.langchain import LangchainCache, LangchainStore


class Fixtures:
    """What all suites get."""

    @pytest.fixture
    def manager(self) -> Iterator[MemoryManager]:
        """Return a manager of one test."""
        with MemoryManager("10 MB", "10 MB", "100 MB") as made:
            yield made

    @pytest.fixture
    def kv_store(self, manager: MemoryManager) -> LangchainStore:
        """Return an empty store."""
        return LangchainStore(manager)

    @pytest.fixture
    def three_values(self) -> tuple[Any, Any, Any]:
        """Return values of different types."""
        return b"a", "b", {"c": [1.5]}

    @pytest.fixture
    def cache(self, manager: MemoryManager) -> LangchainCache:
        """Return an empty cache."""
        return LangchainCache(manager)


class TestStore(Fixtures, BaseStoreSyncTests):
    """Values by key."""


class TestStoreAsync(Fixtures, BaseStoreAsyncTests):
    """The same, with coroutines."""


class TestCache(Fixtures, SyncCacheTestSuite):
    """Answers of models."""


class TestCacheAsync(Fixtures, AsyncCacheTestSuite):
    """The same, with coroutines."""


def test_prompts_are_distinguished() -> None:
    """The end of a prompt is not taken for the beginning of the settings."""
    with MemoryManager("10 MB", "10 MB", "100 MB") as manager:
        cache = LangchainCache(manager, ttl=60)
        cache.update("ab", "c", [Generation(text="1")])
        assert cache.lookup("a", "bc") is None
        assert manager.info(next(manager.scan())).expires_at is not None


@pytest.mark.parametrize("key", [1, None, b"x", ("a",)])
def test_keys_and_prompts_are_texts(key: Any) -> None:
    """Anything else is refused by name, and nothing is stored."""
    with MemoryManager("10 MB", "10 MB", "100 MB") as manager:
        store, cache = LangchainStore(manager), LangchainCache(manager)
        calls: list[Callable[[], Any]] = [
            lambda: store.mset([("a", 1), (key, 2)]),
            lambda: store.mget([key]),
            lambda: store.mdelete([key]),
            lambda: cache.lookup(key, "model"),
            lambda: cache.update("prompt", key, [Generation(text="1")]),
        ]
        for call in calls:
            with pytest.raises(InvalidKeyError, match=f"not {type(key).__name__}"):
                call()
        with pytest.raises(InvalidKeyError, match="must be a str, not int"):
            LangchainStore(manager, 3)  # type: ignore[arg-type]
        with pytest.raises(InvalidOptionError, match="ttl='soon'"):
            LangchainCache(manager, ttl="soon")  # type: ignore[arg-type]
        assert [] == list(manager.scan())
