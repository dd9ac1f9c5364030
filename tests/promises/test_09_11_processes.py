"""Promises 9 and 11: no hang, and no surprise for a process."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.promises.conftest import Make
from tests.support.forking import in_child

from memories import ClosedError, StoreLockedError


def test_a_second_writer_is_refused_at_once(make: Make, tmp_path: Path) -> None:
    """The error names the process that holds the store."""
    make()
    with pytest.raises(StoreLockedError, match="open in this process already"):
        make(on_full="evict")
    script = (
        "import sys; from memories import MemoryManager, StoreLockedError\n"
        "try: MemoryManager(storage_path=sys.argv[1])\n"
        "except StoreLockedError: sys.exit(7)"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path / "store")], timeout=60)
    assert 7 == ended.returncode


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_a_forked_child_reads_and_may_not_write(make: Make) -> None:
    """RAM stays readable, cold is opened anew, writes are refused, the parent keeps its store."""
    manager = make()
    manager.store("hot", "h", "hot")
    manager.store("warm", np.arange(5), "warm")
    manager.store("cold", "c", "cold")
    assert "'h'" == in_child(lambda: manager["hot"])
    assert "10" == in_child(lambda: int(manager["warm"].sum()))
    assert "'c'" == in_child(lambda: manager["cold"])
    assert in_child(lambda: manager.store("new", 1)).startswith("ForkedError: ")
    assert in_child(lambda: manager.delete("hot")).startswith("ForkedError: ")
    assert in_child(lambda: manager["absent"]).startswith("KeyNotFoundError: ")
    assert "None" == in_child(lambda: manager.cleanup())
    manager.store("after", 1, "cold")
    assert "c" == manager.retrieve("cold")


def test_a_pickled_manager_is_a_reader(make: Make) -> None:
    """It sees what is durable, and changes nothing."""
    manager = make()
    manager.store("cold", "c", "cold")
    manager.store("hot", "h", "hot")
    with pytest.warns(UserWarning, match="1 values are only in RAM"):
        pickled = pickle.dumps(manager)
    with pickle.loads(pickled) as reader:
        assert "c" == reader.retrieve("cold")
        assert "hot" not in reader
        with pytest.raises(OSError, match="read_only"):
            reader.store("x", 1)


def test_a_closed_manager_says_so_everywhere(make: Make) -> None:
    """cleanup() may be called twice; everything else raises."""
    manager = make()
    manager.store("a", 1)
    manager.cleanup()
    manager.cleanup()
    for act in (
        lambda: manager.retrieve("a"),
        lambda: manager["a"],
        lambda: manager.store("a", 1),
        lambda: manager.delete("a"),
        lambda: manager.exists("a"),
        lambda: list(manager),
        lambda: len(manager),
        lambda: manager.get_memory_usage(),
        lambda: manager.stats(),
        lambda: manager.clear(),
        lambda: manager.create_snapshot("x"),
        lambda: manager.enable_analytics(),
    ):
        with pytest.raises(ClosedError):
            act()
    assert "<MemoryManager closed>" == repr(manager)
