"""A worker of dask keeps its results in RAM and in the tiers; the scenarios are those of dask.

They are those of `test_spill.py` and `test_worker_memory.py` of distributed, which are not
installed with it. Theirs look at the files of `SpillBuffer`; these ask the manager.
"""

from __future__ import annotations

import array
import asyncio
import ctypes
import functools
import gc
import random
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("distributed", reason="dask.distributed is not installed")

import dask
from dask.sizeof import sizeof
from distributed import Client, LocalCluster, Worker, utils_test, wait
from distributed.spill import SpillBuffer
from distributed.utils import RateLimiterFilter
from distributed.utils_test import captured_logger, inc
from tests.support.waiting import until

from memories import InvalidOptionError, StorageError
from memories.dask import WorkerData, worker_data

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
gen_cluster = functools.partial(utils_test.gen_cluster, timeout=240)  # On a busy machine, too.
SPILL_ONLY = {
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": 0.7,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.monitor-interval": "10ms",
}
TARGET_ONLY = {
    "distributed.worker.memory.target": 0.6,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., WorkerData]]:
    """Return a function that makes the data of a worker; all are closed at the end."""
    made = []

    def new(target: int, most: int | None = None, **options: Any) -> WorkerData:
        disk = None if most is None else f"{most} B"
        where = tmp_path / str(len(made))
        where.mkdir()
        data = worker_data(str(where), target=f"{target} B", disk=disk, **options)
        made.append(data)
        return data

    yield new
    for data in made:
        data.close()


def stored(data: WorkerData, *keys: Any) -> int:
    """Return the bytes that these results take on the disk, by the manager."""
    names = {str(key): key for key in data.manager}
    found = [name for name in names if name.rsplit("#", 1)[0] in keys]
    return sum(data.manager.info(name).stored or 0 for name in found)


def check(data: WorkerData, fast: Mapping[Any, Any], slow: Mapping[Any, Any]) -> None:
    """Check where the results are, and that all weights are those of dask."""
    assert dict(fast) == dict(data.fast)
    assert {key: sizeof(value) for key, value in fast.items()} == data.fast.weights
    for key, value in data.fast.items():
        assert value is data[key]
    assert set(slow) == set(data.slow) == set(data.disk)
    assert sum(map(sizeof, slow.values())) == data.spilled_total.memory
    assert stored(data, *slow) == data.spilled_total.disk
    assert len(fast) + len(slow) == len(data) == len(list(data))


def test_results_move_by_their_weight_and_by_use(make: Callable[..., WorkerData]) -> None:
    """dask places work by these weights: the mapping must have the same ones."""
    data = make(300)
    a, b, c, d = "a" * 100, "b" * 99, "c" * 98, "d" * 97
    check(data, {}, {})
    data["a"], data["b"] = a, b
    check(data, {"a": a, "b": b}, {})
    data["c"] = c
    check(data, {"b": b, "c": c}, {"a": a})
    assert a == data["a"]
    assert {"a", "c"} == set(data.fast)
    data["d"] = d
    assert ({"a", "d"}, {"b", "c"}) == (set(data.fast), set(data.slow))
    del data["a"], data["b"]
    check(data, {"d": d}, {"c": c})
    with pytest.raises(KeyError):
        data["b"]
    data["c"] = c * 2
    check(data, {"c": c * 2}, {"d": d})
    data["e"] = "e" * 500
    data["d"] = "d" * 500
    check(data, {"c": c * 2}, {"d": "d" * 500, "e": "e" * 500})
    assert "d" * 500 == data["d"]


def test_a_result_that_returned_is_not_written_again(make: Callable[..., WorkerData]) -> None:
    """Results that take turns in RAM would otherwise be written at each turn."""
    data = make(20_000)
    values = {("x", i): np.arange(1000.0) + i for i in range(6)}
    data.update(values)
    for _ in range(3):
        for key, value in values.items():
            assert np.array_equal(value, data[key])
    assert 6 == data.cumulative_metrics["disk-write", "count"]
    for key in values:
        del data[key]
    assert not len(data) and not len(data.manager)


def test_tasks_may_write_to_what_they_get(make: Callable[..., WorkerData]) -> None:
    """A task that fails on its second run, because its input was on the disk, cannot be found."""
    import pandas as pd

    data = make(1)
    frame = pd.DataFrame({"n": np.arange(100), "t": ["a"] * 100})
    values = {"array": np.zeros((50, 60), order="F"), "frame": frame, "list": [1, np.ones(3)]}
    data.update(values)
    assert {"array", "frame", "list"} == set(data.slow)
    got = data["array"]
    got[0, 0] = 1
    assert got.flags.f_contiguous
    data["frame"].loc[0, "n"] = 5
    data["list"][1][0] = 2
    pd.testing.assert_frame_equal(frame, data["frame"])


def test_a_large_result_lies_in_its_file(make: Callable[..., WorkerData]) -> None:
    """A task may write to it. What leaves RAM again is the result as it was."""
    import pandas as pd

    data = make(1)
    frame = pd.DataFrame({"n": np.random.default_rng(1).random(300_000)})
    array = np.random.default_rng(2).random((400, 500)).T
    data.update({"array": array.copy(order="K"), "frame": frame.copy()})  # Not in use elsewhere.
    for _ in range(2):
        got = data["array"]
        assert np.array_equal(got, array) and got.flags.f_contiguous and got.flags.writeable
        got[0, 0] = 7.0
        del got
        other = data["frame"]
        pd.testing.assert_frame_equal(frame, other)
        other.loc[0, "n"] = 7.0
        del other
    owner = data["array"]
    while isinstance(owner, np.ndarray):
        owner = owner.base
    assert isinstance(owner.obj, ctypes.Array), "it is a copy"


def test_nothing_is_mapped_where_the_disk_is_scarce(make: Callable[..., WorkerData]) -> None:
    """What is mapped keeps its room on the disk, and could not make room for another result."""
    data = make(100_000_000, most=5_000_000)
    values = {name: np.random.default_rng(1).random(250_000) + i for i, name in enumerate("abcd")}
    for name in "ab":
        data[name] = values[name].copy()
    assert data.evict() > 0 < data.evict()
    assert np.array_equal(values["a"], data["a"])
    assert not data._cold._mapped
    for name in "cd":  # The copy of `a`, which has returned to RAM, makes room for one of them.
        data[name] = values[name].copy()
    assert data.evict() > 0
    RateLimiterFilter.reset_timer("distributed.spill")
    with captured_logger("distributed.spill"):
        data.evict(), data.evict()
    assert data.spilled_total.disk <= 5_000_000
    assert all(np.array_equal(value, data[name]) for name, value in values.items())


def test_a_mapped_copy_makes_no_room(make: Callable[..., WorkerData]) -> None:
    """Its file would stay, and the result would have to be written again."""
    data = make(100_000_000, most=5_000_000)
    values = {name: np.random.default_rng(1).random(250_000) + i for i, name in enumerate("abc")}
    data["a"] = values["a"].copy()
    assert data.evict() > 0
    data["b"], data["c"] = values["b"], values["c"]
    assert np.array_equal(values["a"], data["a"]) and {"a"} == data._cold._mapped
    assert data.evict() > 0
    RateLimiterFilter.reset_timer("distributed.spill")
    with captured_logger("distributed.spill"):
        assert -1 == data.evict(), "it made room for `c`"
    del data["c"]
    assert data.evict() > 0 and {"a", "b"} == set(data.slow)
    assert 2 == data.cumulative_metrics["disk-write", "count"]
    assert np.array_equal(values["a"], data["a"])


def test_keys_of_dask_do_not_collide(make: Callable[..., WorkerData]) -> None:
    """1 and "1" are two keys, and most keys are tuples."""
    data = make(100_000)
    values = {1: 10, "1": 20, ("x", 0, 1): 30, "('x', 0, 1)": 40, b"\0": 50, "long" * 999: 60}
    data.update(values)
    while data.fast:
        assert data.evict() > 0
    assert values.keys() == data.keys()
    assert values == dict(data)


def test_values_of_every_kind_come_back(make: Callable[..., WorkerData]) -> None:
    """Functions and local classes are results, too: what dask can send it can also spill."""
    data = make(1)

    class Local:
        n = 7

    data["function"], data["class"] = (lambda n: n + 1), Local()
    data["objects"] = np.array([1, "a", None], dtype=object)
    data["array"] = array.array("d", [random.random() for _ in range(100)])
    data["empty"], data["nothing"] = np.empty((0, 3)), None
    gc.collect()
    assert 2 == data["function"](1) and 7 == data["class"].n
    assert [1, "a", None] == list(data["objects"])
    assert 100 == len(data["array"]) and (0, 3) == data["empty"].shape
    assert data["nothing"] is None


class Bad:
    """It cannot be pickled, and has the size that it was given."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __getstate__(self) -> Any:
        raise RuntimeError("cannot be pickled")

    def __sizeof__(self) -> int:
        return self.size


def test_a_result_that_cannot_be_written_stays_in_ram(make: Callable[..., WorkerData]) -> None:
    """The worker goes on with it, and the log says why memory is not freed."""
    data = make(200)
    with pytest.raises(TypeError, match="Failed to pickle 'a'"):
        data["a"] = Bad(201)
    check(data, {}, {})
    bad = data["b"] = Bad(100)
    with captured_logger("distributed.spill") as log:
        data["c"] = "c" * 100
    assert "Failed to pickle 'b'" in log.getvalue() and "Traceback" in log.getvalue()
    check(data, {"b": bad, "c": "c" * 100}, {})
    del data["c"]
    assert -1 == data.evict()
    check(data, {"b": bad}, {})


def test_the_limit_of_the_disk_holds(make: Callable[..., WorkerData]) -> None:
    """A full disk of a node ends all of its workers."""
    data = make(1000, most=5000)
    values = {name: random.randbytes(2000) for name in "abc"}
    data["a"], data["b"] = values["a"], values["b"]
    assert {"a", "b"} == set(data.slow)
    RateLimiterFilter.reset_timer("distributed.spill")
    with captured_logger("distributed.spill") as log:
        data["c"] = values["c"]
    assert "disk reached capacity" in log.getvalue()
    check(data, {"c": values["c"]}, {"a": values["a"], "b": values["b"]})
    # Copies of what is in RAM again make room.
    large = make(100_000, most=5000)
    large["a"], large["b"] = values["a"], values["b"]
    assert large.evict() > 0 < large.evict()
    assert values["a"] == large["a"]
    large["c"] = values["c"]
    del large["b"]
    assert large.evict() > 0 < large.evict()
    assert {"a", "c"} == set(large.slow)
    assert large.spilled_total.disk <= 5000


def test_a_disk_that_refuses_loses_nothing(
    make: Callable[..., WorkerData], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like a full one: the worker goes on with what fits into RAM."""
    data = make(200)

    def refuse(*args: Any, **options: Any) -> None:
        raise StorageError("the disk refused it")

    with monkeypatch.context() as patch, captured_logger("distributed.spill") as log:
        patch.setattr(data.manager, "store", refuse)
        data["a"] = "a" * 500
    assert "Spill to disk failed" in log.getvalue()
    check(data, {"a": "a" * 500}, {})
    assert data.evict() > 0
    check(data, {}, {"a": "a" * 500})


class NoWeakRef:
    """An object that is another one each time it is read from the disk."""

    __slots__ = ("id", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.id = uuid.uuid4()

    def __sizeof__(self) -> int:
        return self.size

    def __reduce__(self) -> Any:
        return type(self), (self.size,)


class SupportsWeakRef(NoWeakRef):
    __slots__ = ("__weakref__",)


@pytest.mark.parametrize(("kind", "same"), [(SupportsWeakRef, True), (NoWeakRef, False)])
@pytest.mark.parametrize("size", [60, 110])
def test_what_is_in_use_is_not_read_again(
    make: Callable[..., WorkerData], kind: type[NoWeakRef], same: bool, size: int
) -> None:
    """A second copy in RAM of what just left it would be worse than none."""
    data = make(100)
    x = kind(size)
    data["x"] = x
    if size < 100:
        data["y"] = kind(60)
    assert "x" in data.slow
    assert same == (data["x"] is x)


def test_metrics_of_dask_count_the_tiers(make: Callable[..., WorkerData]) -> None:
    """Its dashboard and its Prometheus page show them."""
    data = make(35_000)
    a, c, d = random.randbytes(20_000), random.randbytes(30_000), random.randbytes(40_000)
    data["a"] = a
    assert a == data["a"]
    data["c"] = c
    data.evict()
    data["d"] = d
    sizes = {key: stored(data, key) for key in "acd"}
    assert c == data["c"] and d == data["d"]
    counts = {key: n for key, n in data.cumulative_metrics.items() if key[1] != "seconds"}
    assert {
        ("disk-read", "bytes"): sizes["c"] + sizes["d"],
        ("disk-read", "count"): 2,
        ("disk-write", "bytes"): sum(sizes.values()),
        ("disk-write", "count"): 3,
        ("memory-read", "bytes"): sizeof(a),
        ("memory-read", "count"): 1,
    } == counts
    seconds = {key[0] for key in data.cumulative_metrics if key[1] == "seconds"}
    assert {"disk-write", "disk-read"} == seconds


def test_there_is_no_pop(make: Callable[..., WorkerData]) -> None:
    """It would read from the disk what is thrown away."""
    with pytest.raises(NotImplementedError):
        make(100).pop("x", None)


def test_compression_follows_the_settings_of_dask(make: Callable[..., WorkerData]) -> None:
    sizes = {}
    for name in ("zlib", None):
        with dask.config.set({"distributed.worker.memory.spill-compression": name}):
            data = make(1)
        data["x"] = "x" * 200_000
        sizes[name] = stored(data, "x")
    assert sizes["zlib"] < 20_000 < 200_000 <= sizes[None]
    with (
        dask.config.set({"distributed.worker.memory.spill-compression": "odd"}),
        pytest.raises(InvalidOptionError, match="odd"),
    ):
        make(1)


def test_an_invalid_option_leaves_no_store(tmp_path: Path) -> None:
    """A program may try again, and its worker has no threads or files of the first try."""
    options: dict[str, Any]
    for options in ({"target": -5}, {"device_memory": "much"}, {"disk": "much"}, {"compresion": 1}):
        with pytest.raises((InvalidOptionError, TypeError)):
            worker_data(str(tmp_path), **options)
        assert not list(tmp_path.iterdir())


class OnDevice(np.ndarray[Any, Any]):
    """Stands for an array of a GPU."""


def on_device(n: int) -> Any:
    return np.zeros(n).view(OnDevice)


def test_results_on_a_device_stay_there(
    make: Callable[..., WorkerData], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory of the process does not shrink when an array of a GPU is written to the disk."""
    monkeypatch.setattr(
        "memories.integrations.dask.is_on_device", lambda value: type(value) is OnDevice
    )
    data = make(1000, device_memory="20 kB")
    values = {i: on_device(1000) for i in range(2)}
    data.update(values)
    assert not data.fast and values.keys() == data.hot.keys() == data.keys()
    assert all(value is data[i] for i, value in values.items())
    data["third"] = on_device(1000)
    assert {1, "third"} == set(data.hot) and {0} == set(data.slow)
    assert 3 == len(data) == len(list(data))
    assert isinstance(data[0], OnDevice)
    assert {0, "third"} == set(data.hot) and not data.fast
    for key in list(data):
        del data[key]
    assert not data and not len(data.manager)


@gen_cluster(client=True, nthreads=[("", 1)], config=TARGET_ONLY, worker_kwargs={
    "memory_limit": 1200 / 0.6, "data": worker_data})  # fmt: skip
async def test_the_target_is_that_of_the_worker(c: Any, s: Any, a: Any) -> None:
    """dask does not say how much memory a worker has when it asks for the mapping."""
    futures = {}
    for name in "xyz":
        futures[name] = c.submit(str.__mul__, name, 500, key=name)
        await wait(futures[name])
    assert isinstance(a.data, WorkerData)
    assert {"x", "y", "z"} == set(a.data)
    assert ({"y", "z"}, {"x"}) == (set(a.data.memory), set(a.data.disk))
    assert "x" * 500 == await futures["x"]
    assert ({"x", "z"}, {"y"}) == (set(a.data.memory), set(a.data.disk))
    metrics = await a.get_metrics()
    assert tuple(a.data.spilled_total) == tuple(metrics["spilled_bytes"].values())


@gen_cluster(client=True, nthreads=[("", 1)], config=SPILL_ONLY, worker_kwargs={
    "memory_limit": "1000 MB", "data": worker_data})  # fmt: skip
async def test_the_memory_monitor_evicts(c: Any, s: Any, a: Any) -> None:
    """`sizeof` may be far from the truth; the memory of the process is not."""
    a.monitor.get_process_memory = lambda: 800_000_000 if a.data.fast else 0
    future = c.submit(inc, 0, key="x")
    while not a.data.disk:
        await asyncio.sleep(0.01)
    assert 1 == await future


@gen_cluster(client=True, nthreads=[("", 1)], worker_kwargs={
    "memory_limit": "1000 MB", "data": worker_data},
    config=SPILL_ONLY | {"distributed.worker.memory.target": 0.4})  # fmt: skip
async def test_the_memory_monitor_stops_at_the_target(c: Any, s: Any, a: Any) -> None:
    a.monitor.get_process_memory = lambda: 50_000_000 * len(a.data.fast)

    class Small:
        def __sizeof__(self) -> int:
            return 0

    futures = [c.submit(Small, pure=False) for _ in range(10)]
    await wait(futures)
    await asyncio.sleep(0.1)
    assert not a.data.disk
    futures += [c.submit(Small, pure=False) for _ in range(5)]
    await wait(futures)
    while len(a.data.disk) < 7:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)  # Ten turns of the monitor more.
    assert 7 == len(a.data.disk)


class Sized:
    """A result of 20 MB, by what it says."""

    def __sizeof__(self) -> int:
        return 20_000_000


@gen_cluster(client=True, nthreads=[("", 1)], worker_kwargs={
    "memory_limit": "1000 MB", "data": worker_data},
    config=SPILL_ONLY | {"distributed.worker.memory.pause": 0.8,
        "distributed.worker.memory.monitor-interval": "1h"})  # fmt: skip
async def test_results_leave_ram_before_the_worker_is_paused(c: Any, s: Any, a: Any) -> None:
    """The monitor looks now and then, and many results may enter between two of its looks."""
    a.monitor.get_process_memory = lambda: 100_000_000 * len(a.data.fast)
    results = [c.submit(Sized, key=f"x{n}") for n in range(8)]
    await wait(results)
    assert not a.data.disk
    results.append(c.submit(Sized, key="x8"))
    await wait(results)
    assert (7, 2) == (len(a.data.fast), len(a.data.disk))
    assert all(type(one) is Sized for one in await c.gather(results))


@gen_cluster(client=True, nthreads=[("", 1)], config=SPILL_ONLY, worker_kwargs={
    "memory_limit": "1 kB", "data": worker_data})  # fmt: skip
async def test_a_bad_result_does_not_stop_the_worker(c: Any, s: Any, a: Any) -> None:
    a.monitor.get_process_memory = lambda: 701 if a.data.fast else 0
    RateLimiterFilter.reset_timer("distributed.spill")
    with captured_logger("distributed.spill") as log:
        bad = c.submit(Bad, 1, key="bad")
        await wait(bad)
        while "Failed to pickle" not in log.getvalue():
            await asyncio.sleep(0.01)
    assert "finished" == bad.status and "bad" in a.data.fast
    assert list(range(1, 11)) == await c.gather(c.map(inc, range(10)))


@gen_cluster(nthreads=[])
async def test_the_store_ends_with_its_worker(s: Any) -> None:
    """Its threads, its lock and its files; the log of the worker stays without a warning."""
    async with Worker(s.address, data=worker_data) as worker:
        manager = worker.data.manager
        where = Path(worker.local_directory)
        assert list((where / "memories").iterdir())
    assert manager.closed and not where.exists()


@gen_cluster(nthreads=[], config={
    "distributed.worker.preload": ["memories.dask"],
    "memories": {"worker-data": {"disk": "77 MB"}}})  # fmt: skip
async def test_the_configuration_file_is_enough(s: Any) -> None:
    """Who starts `dask worker` in a batch system gives it no Python objects."""
    async with Worker(s.address, memory_limit="1 GB") as worker:
        assert isinstance(worker.data, WorkerData) and worker.data is worker.state.data
        assert 600_000_000 == worker.data.n
        assert 77_000_000 == worker.data.manager.stats().tiers["cold"].configured_bytes
    assert worker.data.manager.closed


def test_a_reduction_larger_than_memory_is_right() -> None:
    """In worker processes: nothing is paused for ever, nothing restarted, no file is left."""
    import dask.array as da

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, memory_limit="450 MB",
            dashboard_address="127.0.0.1:0", silence_logs=50,
            data=(worker_data, {"compression": {"cold": "none"}}),
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        x = da.arange(40_000_000, chunks=1_000_000, dtype="float64").persist()
        assert (40_000_000 - 1) / 2 == x.mean().compute(timeout=240)
        state = client.run(
            lambda dask_worker: (type(dask_worker.data), dask_worker.data.spilled_total.disk)
        )
        ((kind, spilled),) = state.values()
        assert (WorkerData, True) == (kind, spilled > 100_000_000)
        (where,) = client.run(lambda dask_worker: dask_worker.local_directory).values()
        assert "running" == next(iter(client.scheduler_info()["workers"].values()))["status"]
    until(lambda: not Path(where).exists())
    assert issubclass(WorkerData, SpillBuffer)
