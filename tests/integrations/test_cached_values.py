"""What the caches of hosts have in common: terms, names, and what a failure means."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memories import (
    InvalidKeyError,
    InvalidOptionError,
    KeyNotFoundError,
    MemoryManager,
    SharedMemoryManager,
)
from memories.integrations.cached_values import CachedValues, manager_for

SIZES: dict[str, Any] = {
    "hot_memory_size": "1 MB", "warm_memory_size": "1 MB", "cold_memory_size": "20 MB",
}  # fmt: skip


@pytest.fixture(params=[MemoryManager, SharedMemoryManager])
def values(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CachedValues]:
    """Return values in a manager of each kind."""
    with request.param(storage_path=tmp_path / "store", **SIZES) as manager:
        yield CachedValues(manager, "host/")


def test_values_are_kept_changed_and_removed(values: CachedValues) -> None:
    """Each call says what it found."""
    assert values.get("a", 7) == 7 and not values.has("a")
    assert values.add("a", 1) and not values.add("a", 2)
    assert 1 == values.get("a", None)
    assert 5 == values.change("a", lambda value: value + 4)
    with pytest.raises(KeyNotFoundError):
        values.change("b", lambda value: value)
    assert values.remove("a") and not values.remove("a")
    values.manager["other"] = 1
    values.put("c", None)
    values.clear()
    assert ["other"] == list(values.manager)


def test_a_time_that_is_over_removes_a_value(values: CachedValues) -> None:
    """Hosts say 0 or less for "at once"."""
    values.put("a", 1, 60)
    values.put("a", 1, 0)
    assert not values.has("a")
    assert values.add("a", 1, -1) and not values.has("a")
    values.put("a", 1)
    assert values.set_ttl("a", 60) and 0 < _seconds_left(values, "a") < 61
    values.change("a", lambda value: value + 1)
    assert 0 < _seconds_left(values, "a") < 61, "a change keeps the time"
    assert values.set_ttl("a", None) and values.manager.info("host/a").expires_at is None
    assert values.set_ttl("a", 0) and not values.has("a")
    assert not values.set_ttl("a", 60)


def _seconds_left(values: CachedValues, name: str) -> float:
    info = values.manager.info(f"host/{name}")
    assert info.expires_at is not None
    return float(info.expires_at - info.stored_at)


@pytest.mark.parametrize(
    "name", ["", "x" * 5000, "a\0b", "\ud800", "#", "#" + "0" * 64, "é" * 3000, "a/b c"]
)
def test_any_text_is_a_name(values: CachedValues, name: str) -> None:
    """A host has keys of its own; none meets another one."""
    values.put(name, "this")
    values.put(name + "!", "other")
    assert "this" == values.get(name, None)


def test_a_value_that_is_too_large_is_not_kept(values: CachedValues) -> None:
    """And does not leave the older one in its place."""
    values.put("a", 1)
    values.put("a", np.random.default_rng(0).bytes(40_000_000))
    assert values.get("a", "absent") == "absent"


def test_changes_of_many_threads_all_count(values: CachedValues) -> None:
    """A counter of visits, in a server with threads."""
    values.put("a", 0)

    def count() -> None:
        for _ in range(25):
            values.change("a", lambda value: value + 1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 100 == values.get("a", None)


def test_a_host_has_one_manager_of_a_directory(tmp_path: Path) -> None:
    """Each thread of a server makes its caches from the same settings."""
    first = manager_for(None, tmp_path / "store", SIZES)
    assert manager_for(None, str(tmp_path / "store"), SIZES) is first
    first.cleanup()
    second = manager_for(None, tmp_path / "store", SIZES)
    assert second is not first
    assert manager_for(second, None, {}) is second
    for wrong in ((second, "elsewhere", {}), ({}, None, {}), (None, None, SIZES)):
        with pytest.raises(InvalidOptionError):
            manager_for(*wrong)
    second.cleanup()


@pytest.mark.parametrize("name", [1, None, b"x", ("a",)])
def test_a_name_is_a_text(values: CachedValues, name: Any) -> None:
    """Anything else is refused by each call."""
    for call in (
        lambda: values.put(name, 1), lambda: values.add(name, 1), lambda: values.get(name, None),
        lambda: values.has(name), lambda: values.remove(name),
    ):  # fmt: skip
        with pytest.raises(InvalidKeyError, match=f"not {type(name).__name__}"):
            call()


def test_settings_of_hosts_are_checked(tmp_path: Path) -> None:
    """They come from files, where a wrong type is soon written."""
    with pytest.raises(InvalidOptionError, match="storage_path=3 is not a path"):
        manager_for(None, 3, {})  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match="options=3 must be a dict"):
        manager_for(None, tmp_path, 3)  # type: ignore[arg-type]
