"""A store that is opened again in the same process, as by a cell of a notebook that runs twice."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.support.forking import in_child
from tests.support.waiting import until

from memories import ClosedError, MemoryManager, MigrationSettings, StoreLockedError
from memories.core.open_stores import name_of


class Sub(MemoryManager):
    """A manager of a user's own class."""


def opened(store: Path, kind: type[MemoryManager] = MemoryManager, **options: Any) -> MemoryManager:
    """Return a manager of the store."""
    given: dict[str, Any] = {"storage_path": store, "migration": False, **options}
    return kind("1 MB", "1 MB", "10 MB", **given)


def test_the_same_options_give_what_is_open(tmp_path: Path) -> None:
    """The cell is run again: what it stored is there, in RAM too, and both are one."""
    first = opened(tmp_path)
    first.store("a", [1], "hot")
    second = opened(tmp_path)
    assert [1] == second.retrieve("a")
    second.store("b", 2, "warm")
    assert {"a": [1], "b": 2} == dict(first)
    assert 3 == first.stats().reads == second.stats().reads
    second.cleanup()
    for manager in (first, second):
        with pytest.raises(ClosedError):
            manager.retrieve("a")
    first.cleanup()
    with opened(tmp_path) as again:
        assert {"a": [1], "b": 2} == dict(again)


def test_a_cell_that_runs_again_leaves_the_store_open(tmp_path: Path) -> None:
    """The new manager is made before the old one is dropped, and the store ends with the last."""
    manager = opened(tmp_path)
    for number in range(3):
        manager.store(str(number), number, "hot")
        manager = opened(tmp_path)
        gc.collect()
        assert number == manager.retrieve(str(number))
    threads = threading.active_count()
    with pytest.warns(ResourceWarning, match="was not closed"):
        del manager
        gc.collect()
    with opened(tmp_path) as manager:  # Waits for the end of what was dropped.
        assert ["0", "1", "2"] == list(manager)
    until(lambda: threading.active_count() <= threads)


def test_a_block_closes_no_manager_of_other_code(tmp_path: Path) -> None:
    """The end of the block would close what the rest of the program goes on using."""
    manager = opened(tmp_path)
    manager.store("a", 1)
    other = opened(tmp_path)
    with pytest.raises(StoreLockedError, match="this `with` block would close"), other:
        raise AssertionError("the block runs")
    assert 1 == manager.retrieve("a")
    del other
    gc.collect()
    with manager:
        assert 1 == manager.retrieve("a")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"on_full": "evict"}, "on_full"),
        ({"migration": None}, "migration"),
        ({"migration": MigrationSettings(interval_seconds=9)}, "migration"),
        ({"glacier_memory_enabled": True}, "glacier_memory_enabled"),
        ({"eviction_policy": "lru"}, "eviction_policy"),
        ({"kind": Sub}, "as a MemoryManager: use"),
    ],
)
def test_other_options_are_refused_with_what_to_do(
    tmp_path: Path, options: dict[str, Any], word: str
) -> None:
    """A manager that does not do what its options say would be worse than an error."""
    with opened(tmp_path) as manager:
        with pytest.raises(StoreLockedError) as caught:
            opened(tmp_path, **options)
        assert word in str(caught.value)
        assert "open in this process already" in str(caught.value)
        assert "call its cleanup() before the store is opened again" in str(caught.value)
        assert [] == list(manager)


def test_secret_options_are_not_shown(tmp_path: Path) -> None:
    """The message names what differs, and no value."""
    glacier = {"glacier_memory_enabled": True, "glacier_url": tmp_path / "bucket"}
    with opened(tmp_path / "s", **glacier):
        with pytest.raises(StoreLockedError) as caught:
            opened(tmp_path / "s", **glacier, storage_options={"password": "hunter2"})
        assert "storage_options" in str(caught.value)
        assert "hunter2" not in str(caught.value)


def test_a_default_and_its_value_agree(tmp_path: Path) -> None:
    """None stands for the default settings."""
    with opened(tmp_path, migration=None):
        opened(tmp_path, migration=MigrationSettings())


def test_readers_and_other_stores_are_their_own(tmp_path: Path) -> None:
    """Only a second writer of one directory is the first one."""
    with opened(tmp_path / "a") as one, opened(tmp_path / "b") as two:
        one.store("k", 1, "cold")
        with opened(tmp_path / "a", read_only=True) as reader, reader:
            assert 1 == reader.retrieve("k")
        assert 1 == one.retrieve("k")
        assert [] == list(two)
    private: dict[str, Any] = {"storage_path": None}
    with opened(tmp_path, **private) as one, opened(tmp_path, **private) as two:
        one.store("k", 1)
        assert [] == list(two)


def test_a_forked_child_gets_no_share(tmp_path: Path) -> None:
    """The store belongs to the parent, whose threads and locks a child does not have."""
    with opened(tmp_path) as manager:
        manager.store("a", 1)
        answer = in_child(lambda: opened(tmp_path))
        assert answer.startswith("StoreLockedError")
        assert f"pid {os.getpid()}" in answer


def test_the_message_names_the_variable_of_a_notebook(tmp_path: Path) -> None:
    """A user finds `manager` or `Out[3]` faster than the address of an object."""
    code = (
        "import sys; from memories import MemoryManager, StoreLockedError\n"
        "from memories.core.open_stores import name_of\n"
        "tiles = MemoryManager('1 MB', '1 MB', '10 MB', storage_path=sys.argv[1])\n"
        "try: MemoryManager('2 MB', '1 MB', '10 MB', storage_path=sys.argv[1])\n"
        "except StoreLockedError as error: print(error)\n"
        "Out = {3: tiles}; del tiles; print(name_of(Out[3])); Out[3].cleanup()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "s")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    message, name = done.stdout.splitlines()
    assert "already, as tiles with other options (sizes)" in message
    assert "Out[3]" == name
    assert "" == name_of(object())
