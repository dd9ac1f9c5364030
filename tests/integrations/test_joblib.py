"""joblib keeps its results in the tiers: by joblib's own tests, and in several processes."""

from __future__ import annotations

import contextlib
import datetime
import os
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("joblib", reason="joblib is not installed")
host = pytest.importorskip("joblib.test.test_memory", reason="joblib came without its tests")

import joblib.memory  # noqa: E402
from joblib import Memory, Parallel, delayed  # noqa: E402
from joblib._store_backends import CacheWarning  # noqa: E402

from memories import InvalidOptionError, MemoryManager, SharedMemoryManager, StorageError  # noqa: E402
from memories.errors import InvalidOptionTypeError  # noqa: E402
from memories.joblib import MemoriesStoreBackend  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")
SIZES = {"hot_memory_size": "1 MB", "warm_memory_size": "4 MB", "cold_memory_size": "64 MB"}
# Tests of joblib that depend on something else than what is returned, and on what.
OTHER = {
    "test_memory_integration": "a store whose directory is removed while it is open",
    "test_parallel_call_cached_function_defined_in_jupyter": "the names of files",
    "test_memory_numpy_check_mmap_mode": "the class numpy.memmap",
    "test_memorized_result_forwards_mmap_mode": "the class numpy.memmap",
    "test_func_dir": "the names of files",
    "test_persistence": "the names of files",
    "test_call_and_shelve_lazily_load_stored_result": "the times of files",
    "test__get_items": "the sizes of files",
    "test__get_items_to_delete": "the sizes of pickles",
    "test_memory_reduce_size_bytes_limit": "the sizes of pickles",
    "test_memory_reduce_size_age_limit": "a machine that does it within a second",
    "test_memory_clear": "the names of files",
    "test_memory_recomputes_after_an_error_while_loading_results": "a damaged file",
}
# Tests of what does not reach a store, or that take seconds.
APART = {
    "test_cached_jupyter_function_persists_across_sessions", "test_info_log",
    "test_register_invalid_store_backends_key", "test_register_invalid_store_backends_object",
    "test_memory_default_store_backend", "test_warning_on_unknown_location_type",
    "test_instanciate_incomplete_store_backend", "test_dummy_store_backend",
    "test_cached_function_race_condition_when_persisting_output",
    "test_cached_function_race_condition_when_persisting_output_2",
    "test_instanciate_store_backend_with_pathlib_path", "test_filesystem_store_backend_repr",
}  # fmt: skip


@pytest.fixture(autouse=True)
def everywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In the tests of joblib every store is one of ours; all are closed after each test."""
    factory = joblib.memory._store_backend_factory
    opened: list[Any] = []

    def ours(backend: str, location: Any, verbose: int = 0, backend_options: Any = None) -> Any:
        options = {name: one for name, one in (backend_options or {}).items() if name in USED}
        made = factory(
            "memories" if backend == "local" else backend,
            location,
            verbose=verbose,
            backend_options=options if isinstance(location, str) else backend_options,
        )
        opened.append(made)
        return made

    monkeypatch.setattr(joblib.memory, "_store_backend_factory", ours)
    yield
    for made in opened:
        if isinstance(made, MemoriesStoreBackend):
            with contextlib.suppress(StorageError):  # Some tests remove the directory.
                made.manager.cleanup()


USED = {"compress", "mmap_mode", *SIZES}
for _name in dir(host):
    if _name.startswith("test_") and _name not in OTHER.keys() | APART:
        globals()[_name] = getattr(host, _name)


@pytest.mark.skipif(
    tuple(map(int, joblib.__version__.split(".")[:2])) < (1, 6),
    reason="joblib before 1.6 has fewer tests",
)
def test_the_tests_that_are_left_out_exist() -> None:
    """A list of exceptions must not grow old."""
    assert [] == [name for name in (*OTHER, *APART) if not hasattr(host, name)]


def scaled(array: Any, factor: float, marks: Path) -> Any:
    """Leave a mark of each computation."""
    (marks / f"{time.time_ns()}-{os.getpid()}").touch()
    return array * factor


def noise(seed: int) -> Any:
    """Return what does not compress."""
    return np.random.default_rng(seed).random(200_000)


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """Return the directory for the marks that `scaled` leaves."""
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


def count(marks: Path) -> int:
    """Return how often `scaled` was computed, in all processes."""
    return len(list(marks.iterdir()))


def memory_at(path: Path, **options: Any) -> Memory:
    return Memory(str(path), backend="memories", verbose=0, backend_options=SIZES, **options)


@pytest.mark.parametrize("kind", ["loky", "threading"])
def test_workers_share_what_they_compute(tmp_path: Path, marks: Path, kind: str) -> None:
    """One process at a time writes a store; the others send it their results."""
    memory = memory_at(tmp_path / "store")
    cached = memory.cache(scaled, ignore=["marks"])
    array = np.arange(10_000.0)
    for _ in range(2):
        found = Parallel(n_jobs=2, backend=kind)(delayed(cached)(array, n, marks) for n in range(4))
        assert all(np.array_equal(array * n, one) for n, one in enumerate(found))
        assert 4 == count(marks)
    assert np.array_equal(array * 3, cached(array, 3, marks))
    assert 4 == count(marks)


def test_a_result_is_the_callers_own(tmp_path: Path) -> None:
    """With joblib, the caller of a cached function may write to its result."""
    memory = memory_at(tmp_path / "store")
    zeros = memory.cache(np.zeros)
    for _ in range(3):
        found = zeros(1000)
        assert not found.any()
        found[:] = 1
    views = memory_at(tmp_path / "store", mmap_mode="r").cache(np.zeros)
    assert not views(1000).flags.writeable
    with pytest.raises(InvalidOptionError, match="mmap_mode"):
        memory_at(tmp_path / "other", mmap_mode="r+")


def test_the_budget_holds(tmp_path: Path) -> None:
    """joblib's own store grows until `reduce_size` is called; this one never exceeds its size."""
    memory = memory_at(tmp_path / "store")
    cached = memory.cache(noise)
    for n in range(60):
        assert np.array_equal(noise(n), cached(n))  # 96 MB in all.
    (writer,) = [one for one in _managers() if one.path == tmp_path / "store" / "joblib"]
    tiers = writer.stats().tiers
    assert 30_000_000 < tiers["cold"].used_bytes <= 64_000_000
    assert tiers["warm"].used_bytes <= 4_000_000
    files = sum(one.stat().st_size for one in (tmp_path / "store").rglob("*") if one.is_file())
    assert files <= 70_000_000


def _managers() -> list[MemoryManager]:
    from memories.core.lifecycle import running

    owners = [owner for one in running() for owner in one.owners()]
    return [owner for owner in owners if isinstance(owner, MemoryManager)]


def test_another_program_finds_the_results(tmp_path: Path, marks: Path) -> None:
    memory = memory_at(tmp_path / "store")
    array = np.ones(100)
    memory.cache(scaled, ignore=["marks"])(array, 2, marks)
    memory.store_backend.manager.cleanup()
    again = memory_at(tmp_path / "store")
    assert np.array_equal(array * 2, again.cache(scaled, ignore=["marks"])(array, 2, marks))
    assert 1 == count(marks)


def test_a_manager_that_is_open_can_be_used(marks: Path) -> None:
    """Results beside other values, below a prefix of their own."""
    with MemoryManager("1 MB", "4 MB", "16 MB") as manager:
        manager["other"] = 1
        memory = Memory(MemoriesStoreBackend(manager), verbose=0)
        cached = memory.cache(scaled, ignore=["marks"])
        assert 6 == cached(3, 2, marks) == cached(3, 2, marks)
        assert 1 == count(marks)
        assert all(key.startswith("joblib/") for key in manager if key != "other")
        copy = pickle.loads(pickle.dumps(memory.store_backend))
        assert copy.manager is manager
        memory.clear(warn=False)
        assert ["other"] == list(manager)


def test_what_cannot_be_stored_is_a_warning(tmp_path: Path) -> None:
    """The program goes on with the result."""

    class Odd:
        def __reduce__(self) -> Any:
            raise RuntimeError("some exception")

    class Unpicklable:
        def __reduce__(self) -> Any:
            raise pickle.PicklingError("not picklable")

    memory = memory_at(tmp_path / "store")
    with pytest.warns(CacheWarning, match="some exception"):
        memory.store_backend.dump_item(["f", "1"], Odd())
    with pytest.warns(FutureWarning, match="not picklable"):
        memory.store_backend.dump_item(["f", "1"], Unpicklable())


def test_compress_is_an_option_of_joblib(tmp_path: Path) -> None:
    sizes = []
    for number, compress in enumerate((False, True, ("lz4", 3), "zstd")):
        memory = memory_at(tmp_path / str(number), compress=compress)
        memory.cache(np.repeat)("abc", 100_000)
        memory.store_backend.manager.flush()
        sizes.append(sum(item.size for item in memory.store_backend.get_items()))
    assert max(sizes) < 600_000
    with pytest.raises(InvalidOptionError, match="gzip"):
        memory_at(tmp_path / "odd", compress=("gzip", 3))


def test_old_results_can_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`reduce_size` works on what was used longest ago."""
    memory = memory_at(tmp_path / "store")
    cached = memory.cache(noise)
    for n in range(7):
        cached(n)
        if n == 1:  # The times of results are exact to 10 ms.
            time.sleep(0.2)
            then = datetime.datetime.now()
            time.sleep(0.2)
    # For joblib it is always the same moment, however long it takes to look at its clock.
    stopped = SimpleNamespace(datetime=SimpleNamespace(now=lambda: then))
    monkeypatch.setattr(joblib._store_backends, "datetime", stopped)
    memory.reduce_size(age_limit=datetime.timedelta(days=1))
    assert 7 == len(memory.store_backend.get_items())
    memory.reduce_size(age_limit=datetime.timedelta(0))
    assert 5 == len(memory.store_backend.get_items())
    memory.reduce_size(bytes_limit="4M")
    assert 2 == len(memory.store_backend.get_items())
    assert isinstance(memory.store_backend.manager, SharedMemoryManager)
    cached.clear(warn=False)
    assert [] == memory.store_backend.get_items()


def test_arguments_of_a_wrong_type_are_errors_of_ours(tmp_path: Path) -> None:
    """Where they are given, and not when a result is read."""
    for wrong in ("a path", 3, object()):
        with pytest.raises(InvalidOptionTypeError, match="must be a MemoryManager or a Shared"):
            MemoriesStoreBackend(wrong)
    with pytest.raises(InvalidOptionError, match="backend_options must be a mapping"):
        MemoriesStoreBackend().configure(str(tmp_path), backend_options="compress")  # type: ignore[arg-type]
