"""The backend of dogpile.cache: its own suite, and values over two processes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.support.forking import in_child

from memories import InvalidOptionError, MemoryManager

pytest.importorskip("dogpile.cache", reason="this is a backend of dogpile.cache")

from dogpile.cache import make_region, register_backend
from dogpile.testing.fixtures import _GenericBackendTestSuite, _GenericSerializerTestSuite

NAME = "memories.test"
register_backend(NAME, "memories.dogpile", "DogpileBackend")
ARGUMENTS: dict[str, Any] = {}


@pytest.fixture(scope="module", autouse=True)
def manager() -> Iterator[None]:
    """Give the suite a manager."""
    with MemoryManager("10 MB", "10 MB", "100 MB") as made:
        ARGUMENTS["manager"] = made
        yield


class TestBackend(_GenericSerializerTestSuite, _GenericBackendTestSuite):  # type: ignore[misc]
    """The suite of dogpile, also with serializers."""

    backend = NAME
    config_args = {"arguments": ARGUMENTS}
    # By the clock of the machine: a slow one misses what expires, and it takes ten seconds.
    test_region_expire = test_threaded_get_multi = None


def test_a_result_that_is_too_old_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the age that the region allows."""
    now, numbers = [1000.0], itertools.count(1)
    for module in ("cache.region", "lock"):
        monkeypatch.setattr(f"dogpile.{module}.time", SimpleNamespace(time=lambda: now[0]))
    region = make_region().configure(NAME, expiration_time=60, arguments=ARGUMENTS)
    for expected in (1, 1):
        assert expected == region.get_or_create("aging", lambda: next(numbers))
    now[0] += 61
    assert 1 == region.get("aging", ignore_expiration=True)
    for expected in (2, 2):
        assert expected == region.get_or_create("aging", lambda: next(numbers))


def test_a_directory_is_shared(tmp_path: Path) -> None:
    """A forked worker finds the value, and its own is found."""
    arguments = {"storage_path": tmp_path / "store", "options": {"cold_memory_size": "100 MB"}}
    region = make_region().configure(NAME, arguments=arguments)
    region.set("a", np.arange(3))
    assert "[0, 1, 2]" == in_child(lambda: region.get("a").tolist())
    in_child(lambda: region.set("b", "theirs"))
    assert "theirs" == region.get("b")
    region.backend.values.manager.cleanup()


def test_options_are_checked() -> None:
    """Where the region is configured, and not at the first value."""
    with pytest.raises(InvalidOptionError, match="expiration_time"):
        make_region().configure(NAME, arguments={**ARGUMENTS, "expiration_time": -1})
    with pytest.raises(InvalidOptionError, match="arguments must be a mapping"):
        make_region().configure(NAME, arguments="a path")
