"""A store over a manager is pickled as a handle: the same store here, a reader elsewhere."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

zarr = pytest.importorskip("zarr", minversion="3", reason="zarr 3 is not installed")

from tests.support.forking import in_child  # noqa: E402
from zarr.core.buffer import cpu  # noqa: E402

from memories import ForkedError, MemoryManager  # noqa: E402
from memories.zarr import MemoriesStore  # noqa: E402

SIZES = ("8 MB", "16 MB", "64 MB")


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[MemoryManager]:
    with MemoryManager(*SIZES, storage_path=tmp_path / "store") as one:
        yield one


def cube(store: MemoriesStore) -> np.ndarray[Any, Any]:
    """Write an array of many chunks, and return its values."""
    values = np.arange(64 * 64, dtype="int32").reshape(64, 64)
    zarr.create_array(store, name="cube", data=values, chunks=(16, 16))
    return values


READER = """
import pickle, sys
import numpy as np, zarr
store = pickle.loads(bytes.fromhex(sys.argv[1]))
print(store.read_only, int(zarr.open_array(store, path="cube", mode="r")[:].sum()))
"""


def run_reader(store: MemoriesStore) -> subprocess.CompletedProcess[str]:
    """Unpickle `store` in a new process, and read the array there."""
    return subprocess.run(
        [sys.executable, "-c", READER, pickle.dumps(store).hex()],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_another_process_reads_all_that_was_stored(manager: MemoryManager) -> None:
    """A worker that found chunks absent that are only in RAM here would compute with zeros."""
    store = MemoriesStore(manager, "cubes")
    values = cube(store)
    run = run_reader(store)
    assert f"True {values.sum()}\n" == run.stdout, run.stderr


def test_another_process_cannot_use_a_store_without_a_directory() -> None:
    """It must get an error, and not an empty store."""
    with MemoryManager(*SIZES) as private:
        store = MemoriesStore(private)
        cube(store)
        assert pickle.loads(pickle.dumps(store)) == store
        run = run_reader(store)
    assert run.returncode
    assert "give the manager a storage_path" in run.stderr


def test_a_forked_child_reads_and_does_not_write(manager: MemoryManager) -> None:
    """Workers of a data loader are forks; zarr starts a new event loop in them."""
    store = MemoriesStore(manager, "cubes")
    values = cube(store)

    def child() -> None:
        array = zarr.open_array(store, path="cube", mode="r")
        assert np.array_equal(values, array[:])
        assert pickle.loads(pickle.dumps(store)) == store
        with pytest.raises(ForkedError):
            store.set_sync("new", cpu.Buffer.from_bytes(b"1"))

    assert "None" == in_child(child)
