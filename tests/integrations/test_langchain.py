"""The store and the cache of LangChain: langchain-tests' standard tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from memories import MemoryManager

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
