"""A manager is a `MutableMapping[str, Any]`, and its other answers have types, too."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any, assert_type

from memories import Explanation, KeyNotFoundError, MemoryManager, Series, Stats, TierName


def fill(values: MutableMapping[str, Any]) -> int:
    """Work with a dict, or with a manager."""
    values["a"] = 1
    values.setdefault("b", [2])
    return len(values)


with MemoryManager("1 MB", "1 MB", "10 MB") as manager:
    assert_type(manager, MemoryManager)
    assert_type(fill(manager), int)
    assert_type(manager["a"], Any)
    assert_type(manager.scan("a"), Iterator[str])
    assert_type(manager.find(year=2024), Iterator[str])
    assert_type(manager.retrieve_many(["a", "b"]), dict[str, Any])
    assert_type(manager.explain("a"), Explanation)
    assert_type(manager.explain("a").tier, TierName)
    assert_type(manager.stats(), Stats)
    assert_type(manager.stats().tiers[TierName.HOT].hits, int)
    manager.enable_analytics()
    assert_type(manager.get_analytics(), Series)
    for key, value in manager.items():
        assert_type(key, str)
        assert_type(value, Any)
    try:
        manager.retrieve("missing")
    except KeyNotFoundError as error:
        assert_type(str(error), str)

    @manager.oom_guard()
    def work(size: int) -> float:
        """Keep the type here, too."""
        return size / 2

    assert_type(work(1), float)
    if TYPE_CHECKING:
        manager[1] = 2  # wrong
        manager.retrieve_many(3)  # wrong
        manager.store("a")  # wrong
        manager.find({"year": 2024})  # wrong
        work("1")  # wrong
