"""`CachedStore` passes zarr's own tests, and never serves what is not at the source."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

zarr = pytest.importorskip("zarr", minversion="3", reason="zarr 3 is not installed")

from hypothesis import HealthCheck, settings  # noqa: E402
from hypothesis.stateful import run_state_machine_as_test  # noqa: E402
from tests.support.waiting import until  # noqa: E402
from zarr.abc.store import RangeByteRequest, SuffixByteRequest  # noqa: E402
from zarr.core.buffer import cpu, default_buffer_prototype  # noqa: E402
from zarr.storage import LocalStore, MemoryStore, WrapperStore  # noqa: E402
from zarr.testing.stateful import ZarrHierarchyStateMachine, ZarrStoreStateMachine  # noqa: E402
from zarr.testing.store import StoreTests  # noqa: E402

from memories import ConflictError, InvalidOptionError, MemoryManager  # noqa: E402
from memories.integrations.zarr.reads import array_of  # noqa: E402
from memories.testing.clock import ManualClock  # noqa: E402
from memories.zarr import CachedStore  # noqa: E402

FEW = settings(
    deadline=None,
    max_examples=6,
    stateful_step_count=25,
    suppress_health_check=list(HealthCheck),
)
SIZES = ("1 MB", "16 MB", "64 MB")
BUFFER = default_buffer_prototype()


def buffer(content: bytes) -> cpu.Buffer:
    return cpu.Buffer.from_bytes(content)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[MemoryManager]:
    with MemoryManager(*SIZES, storage_path=tmp_path / "store") as one:
        yield one


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MemoryManager]:
    """One manager for all of zarr's tests; each has a source, and so a prefix, of its own."""
    path = tmp_path_factory.mktemp("shared")
    with MemoryManager(*SIZES, storage_path=path / "store") as one:
        yield one


class TestCachedStore(StoreTests[CachedStore, cpu.Buffer]):
    """Zarr's tests of a store; the files of the source are the second opinion."""

    store_cls = CachedStore
    buffer_cls = cpu.Buffer

    @pytest.fixture
    def store_kwargs(self, shared: MemoryManager, tmp_path: Path) -> dict[str, Any]:
        (tmp_path / "source").mkdir()
        return {"source": LocalStore(tmp_path / "source"), "manager": shared}

    @pytest.fixture
    def store(self, open_kwargs: dict[str, Any]) -> CachedStore:
        return asyncio.run(self.store_cls.open(**open_kwargs))

    @pytest.fixture
    def store_not_open(self, store_kwargs: dict[str, Any]) -> CachedStore:
        return self.store_cls(**store_kwargs)

    async def set(self, store: CachedStore, key: str, value: cpu.Buffer) -> None:
        path = Path(store.source.root, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value.to_bytes())

    async def get(self, store: CachedStore, key: str) -> cpu.Buffer:
        return buffer(Path(store.source.root, key).read_bytes())

    def test_store_repr(self, store: CachedStore) -> None:
        assert repr(store).startswith("CachedStore(LocalStore('file://")

    def test_store_supports_writes(self, store: CachedStore) -> None:
        assert store.supports_writes

    def test_store_supports_listing(self, store: CachedStore) -> None:
        assert store.supports_listing


class TestCachedStoreThatAsks(TestCachedStore):
    """The same where the source is asked at each read."""

    @pytest.fixture
    def store_kwargs(self, shared: MemoryManager, tmp_path: Path) -> dict[str, Any]:
        (tmp_path / "source").mkdir()
        source = LocalStore(tmp_path / "source")
        return {"source": source, "manager": shared, "max_age": 0, "absent_seconds": 0}


@pytest.mark.filterwarnings("ignore")  # Of data types that zarr has not specified.
@pytest.mark.parametrize("machine", [ZarrHierarchyStateMachine, ZarrStoreStateMachine])
def test_any_sequence_of_calls_does_what_a_dict_does(
    machine: type[Any], manager: MemoryManager
) -> None:
    """Zarr's own machines; all writes pass through the cache, so that nothing may be old."""
    store = CachedStore(MemoryStore(), manager, prefix="cached", max_age=None)
    run_state_machine_as_test(lambda: machine(store), settings=FEW)


class SlowStore(WrapperStore[Any]):
    """A store some time away that counts its requests, and fails on demand."""

    def __init__(self, store: Any, seconds: float = 0.02, main: SlowStore | None = None) -> None:
        super().__init__(store)
        self.main = main or self  # Zarr makes a read-only twin.
        self.seconds = seconds
        self.held: asyncio.Event | None = None  # Answers wait for it.
        self.asked: list[str] = []
        self.failure: Exception | None = None

    def _with_store(self, store: Any) -> SlowStore:
        return type(self)(store, main=self.main)

    def with_read_only(self, read_only: bool = False) -> SlowStore:
        return self._with_store(self._store.with_read_only(read_only))

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        self.main.asked.append(key)
        found = await self._store.get(key, prototype, byte_range)
        if self.main.held is not None:
            await self.main.held.wait()
        await asyncio.sleep(self.main.seconds)
        if self.main.failure is not None:
            raise self.main.failure
        return found


async def comes_true(condition: Callable[[], object]) -> None:
    """Let other tasks run until `condition` is true."""
    while not condition():
        await asyncio.sleep(0.001)


def cube(store: Any, size: int = 64) -> np.ndarray[Any, Any]:
    """Write an array of 16 x 16 chunks, and return its values."""
    values = np.arange(size * size, dtype="int32").reshape(size, size) + 1
    zarr.create_array(store, name="cube", data=values, chunks=(16, 16))
    if isinstance(store, SlowStore):
        store.asked.clear()
    return values


@pytest.fixture
def source() -> SlowStore:
    return SlowStore(MemoryStore())


def test_a_second_read_asks_nothing_and_gives_the_same(
    manager: MemoryManager, source: SlowStore
) -> None:
    """What was read once is in the tiers: chunks, metadata, and that there are none."""
    values = cube(source)
    store = CachedStore(source, manager, prefix="cached", prefetch=False, absent_seconds=3600)
    assert np.array_equal(values, zarr.open_group(store, mode="r")["cube"][:])
    first = list(source.asked)
    assert np.array_equal(values, zarr.open_group(store, mode="r")["cube"][:])
    assert first == source.asked
    assert len(first) == len(set(first))
    reads = store.reads()["cube"]
    assert reads.requests >= 17 and reads.hits >= 17
    assert f"{reads.requests} requests fetched" in store.explain("cube")


def test_callers_share_one_request(manager: MemoryManager, source: SlowStore) -> None:
    """Tasks, event loops and threads that need the same chunk at once send one request."""
    asyncio.run(source._store.set("c/0", buffer(b"1234")))
    source.seconds = 0.3
    store = CachedStore(source, manager, prefix="cached", prefetch=False)
    found: list[Any] = []

    async def read() -> None:
        found.extend(await asyncio.gather(*(store.get("c/0", BUFFER) for _ in range(5))))

    threads = [threading.Thread(target=lambda: asyncio.run(read())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [b"1234"] * 20 == [one.to_bytes() for one in found]
    assert ["c/0"] == source.asked


def test_a_cancelled_caller_leaves_the_request_to_another(
    manager: MemoryManager, source: SlowStore
) -> None:
    """A web service cancels the task of a client that left; the others must get the chunk."""
    asyncio.run(source._store.set("c/0", buffer(b"1234")))
    store = CachedStore(source, manager, prefix="cached", prefetch=False)

    async def read() -> Any:
        source.held = asyncio.Event()
        first = asyncio.create_task(store.get("c/0", BUFFER))
        await comes_true(lambda: source.asked)
        second = asyncio.create_task(store.get("c/0", BUFFER))
        third = asyncio.create_task(store.get("c/0", BUFFER))
        await asyncio.sleep(0.05)  # They wait for the first one by then.
        first.cancel()
        third.cancel()
        await asyncio.wait([first, third])
        source.held.set()
        return await second

    assert b"1234" == asyncio.run(read()).to_bytes()
    assert ["c/0"] * 2 == source.asked


def test_a_failure_of_the_source_is_raised_and_not_kept(
    manager: MemoryManager, source: SlowStore
) -> None:
    """A source that is away is neither "absent" nor an old value."""
    values = cube(source)
    store = CachedStore(source, manager, prefix="cached", max_age=0)
    array = zarr.open_group(store, mode="r")["cube"]
    assert np.array_equal(values, array[:])
    source.failure = ConnectionError("the bucket is away")
    with pytest.raises(ConnectionError, match="the bucket is away"):
        array[:]
    source.failure = None
    assert np.array_equal(values, array[:])


def test_the_failure_of_an_earlier_request_is_not_raised(
    manager: MemoryManager, source: SlowStore
) -> None:
    """A read that begins when the source is back must not get the error of a request before."""
    asyncio.run(source._store.set("c/0", buffer(b"1234")))
    source.failure = ConnectionError("away")
    store = CachedStore(source, manager, prefix="cached", prefetch=False)

    async def read() -> Any:
        source.held = asyncio.Event()
        first = asyncio.create_task(store.get("c/0", BUFFER))
        await comes_true(lambda: source.asked)
        second = asyncio.create_task(store.get("c/0", BUFFER))
        await asyncio.sleep(0.05)  # It waits for the first one by then.
        source.held.set()
        with pytest.raises(ConnectionError):
            await first
        source.failure = None
        return await second

    assert b"1234" == asyncio.run(read()).to_bytes()


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_an_absent_chunk_is_remembered_for_a_bounded_time(
    manager: MemoryManager, source: SlowStore, seconds: float
) -> None:
    """Sparse cubes have few chunks; one that is written elsewhere must appear."""
    store = CachedStore(source, manager, prefix="cached", absent_seconds=seconds)

    async def read() -> Any:
        return await store.get("c/0", BUFFER)

    assert asyncio.run(read()) is None
    asyncio.run(source._store.set("c/0", buffer(b"1234")))
    found = asyncio.run(read())
    assert (None if seconds else b"1234") == (found and found.to_bytes())


def test_a_write_is_seen_at_once_and_a_read_beside_it_is_not_kept(
    manager: MemoryManager, source: SlowStore
) -> None:
    """Thread 1 reads the old value. Thread 2 writes. Thread 1 must not keep what it has read."""
    asyncio.run(source._store.set("c/0", buffer(b"old")))
    store = CachedStore(source, manager, prefix="cached", max_age=None)

    async def race() -> None:
        source.held = held = asyncio.Event()
        reading = asyncio.create_task(store.get("c/0", BUFFER))
        await comes_true(lambda: source.asked)
        await asyncio.sleep(0.05)  # The source has read the old value by then.
        await store.set("c/0", buffer(b"new"))
        source.held = None
        now = await store.get("c/0", BUFFER)
        assert now is not None and b"new" == now.to_bytes()
        held.set()
        before = await reading
        assert before is not None and b"old" == before.to_bytes()
        later = await store.get("c/0", BUFFER)
        assert later is not None and b"new" == later.to_bytes()

    asyncio.run(race())


def test_two_stores_over_one_source_see_each_others_writes(
    manager: MemoryManager, source: SlowStore
) -> None:
    """A program that opens its cube twice must not read an old chunk through the other one."""
    asyncio.run(source._store.set("c/0", buffer(b"old")))
    one = CachedStore(source, manager, prefix="cached", max_age=None)
    two = CachedStore(source, manager, prefix="cached/", max_age=None)

    async def check() -> None:
        await two.get("c/0", BUFFER)
        await one.set("c/0", buffer(b"new"))
        found = await two.get("c/0", BUFFER)
        assert found is not None and b"new" == found.to_bytes()
        await two.delete_dir("c")
        assert await one.get("c/0", BUFFER) is None

    asyncio.run(check())


@pytest.mark.parametrize("max_age", [0.0, 30.0])
def test_a_change_at_the_source_is_seen_when_the_age_is_over(
    manager: MemoryManager, tmp_path: Path, max_age: float
) -> None:
    """Another program rewrites a chunk; time and size of its file tell."""
    values = cube(LocalStore(tmp_path / "source"))
    store = CachedStore(LocalStore(tmp_path / "source"), manager, max_age=max_age, prefetch=False)
    store._shared.kept._clock = clock = ManualClock()
    array = zarr.open_group(store, mode="r")["cube"]
    assert np.array_equal(values, array[:])
    requests = store.reads()["cube"].requests
    clock.advance(max_age)
    assert np.array_equal(values, array[:])
    again = store.reads()["cube"]
    assert again.checks >= 16
    assert again.requests - requests == again.checks  # Nothing was fetched again.
    zarr.open_group(LocalStore(tmp_path / "source"))["cube"][:16, :16] = -5
    if max_age:
        assert np.array_equal(values, array[:])
    clock.advance(max_age)
    assert (array[:16, :16] == -5).all()


def test_a_reopened_cache_answers_without_the_source(tmp_path: Path) -> None:
    """After a restart the cube must be there, although the bucket is away."""
    source = SlowStore(MemoryStore())
    values = cube(source)
    with MemoryManager(*SIZES, storage_path=tmp_path / "store") as manager:
        store = CachedStore(source, manager, prefix="cached", max_age=None)
        assert np.array_equal(values, zarr.open_group(store, mode="r")["cube"][:])
    source.failure = ConnectionError("the bucket is away")
    with MemoryManager(*SIZES, storage_path=tmp_path / "store") as manager:
        store = CachedStore(source, manager, prefix="cached", max_age=None)
        assert np.array_equal(
            values, zarr.open_array(store, path="cube", mode="r", zarr_format=3)[:]
        )
        asked = len(source.asked)
        fresh = CachedStore(source, manager, prefix="cached")
        with pytest.raises(ConnectionError):
            zarr.open_array(fresh, path="cube", mode="r")
        assert asked < len(source.asked)


def test_the_budget_holds_and_a_full_tier_is_no_error(tmp_path: Path) -> None:
    """A cube that is larger than all tiers together is read through them."""
    source = SlowStore(MemoryStore(), 0)
    values = np.random.default_rng(1).integers(0, 1 << 30, (512, 1024), "int32")
    zarr.create_array(source, name="cube", data=values, chunks=(128, 128), compressors=None)
    with MemoryManager("100 kB", "300 kB", "1.5 MB", storage_path=tmp_path / "store") as manager:
        store = CachedStore(source, manager, prefix="cached")
        for _ in range(3):
            assert np.array_equal(values, zarr.open_group(store, mode="r")["cube"][:])
            for name, tier in manager.stats().tiers.items():
                assert tier.used_bytes <= tier.configured_bytes, name
        assert store.reads()["cube"].fetched_bytes > 2 * values.nbytes


def test_a_pan_is_fetched_ahead(manager: MemoryManager, source: SlowStore) -> None:
    """Reads along a row find the next chunks in the tiers, once the predictor has seen a few."""
    values = np.arange(16 * 1600, dtype="int32").reshape(16, 1600)
    zarr.create_array(source, name="cube", data=values, chunks=(16, 16))
    source.seconds = 0
    store = CachedStore(source, manager, prefix="cached")
    array = zarr.open_group(store, mode="r")["cube"]
    for column in range(0, 1600, 16):
        assert np.array_equal(values[:, column : column + 16], array[:, column : column + 16])
        until(lambda: not store._shared.tasks)
    reads = store.reads()["cube"]
    assert reads.prefetched > 50
    assert reads.hits > 50
    assert len(source.asked) < 130


def test_a_prefix_belongs_to_one_source(manager: MemoryManager, tmp_path: Path) -> None:
    """The chunks of one cube must not be served for those of another."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    CachedStore(LocalStore(tmp_path / "one"), manager, prefix="cached")
    with pytest.raises(InvalidOptionError, match="give each source a prefix of its own"):
        CachedStore(LocalStore(tmp_path / "two"), manager, prefix="cached")
    with pytest.raises(InvalidOptionError, match="give prefix="):
        CachedStore(MemoryStore(), manager)
    with pytest.raises(InvalidOptionError, match="must be a store of zarr"):
        CachedStore(tmp_path, manager)


def test_parts_of_a_shard_are_kept_and_never_mix_two_versions(
    manager: MemoryManager, tmp_path: Path
) -> None:
    """A shard is read by its index and ranges; ranges of a new one by an old index are garbage."""
    root = tmp_path / "source"
    values = np.arange(64 * 64, dtype="int32").reshape(64, 64)
    plain = zarr.create_array(
        LocalStore(root), name="cube", data=values, chunks=(8, 8), shards=(64, 64)
    )
    store = CachedStore(LocalStore(root), manager, max_age=None)
    array = zarr.open_group(store, mode="r")["cube"]
    assert np.array_equal(values[:8, :8], array[:8, :8])
    assert np.array_equal(values[:8, :8], array[:8, :8])
    size = Path(root, "cube", "c", "0", "0").stat().st_size
    assert store.reads()["cube"].fetched_bytes < size  # Not the whole shard.
    plain[:] = np.random.default_rng(1).integers(0, 1 << 30, (64, 64), "int32")
    with pytest.raises((ConflictError, ExceptionGroup)) as caught:  # Newer releases make a group.
        array[8:16, 8:16]
    failures = getattr(caught.value, "exceptions", [caught.value])
    assert ["ConflictError"] == [type(one).__name__ for one in failures]
    assert "changed at the source while it was read in parts" in str(failures[0])
    assert np.array_equal(plain[8:16, 8:16], array[8:16, 8:16])
    assert np.array_equal(plain[:8, :8], array[:8, :8])


def test_many_parts_are_kept_each(manager: MemoryManager, source: SlowStore) -> None:
    """Newer releases of zarr read the inner chunks of a shard by one call."""
    asyncio.run(source._store.set("c/0", buffer(b"12345678")))
    store = CachedStore(source, manager, prefix="cached")

    async def read(key: str, *parts: Any) -> list[bytes]:
        found: dict[int, Any] = {}
        async for group in store.get_ranges(key, parts, prototype=BUFFER, max_concurrency=2):
            found.update(group)
        return [found[number].to_bytes() for number in range(len(parts))]

    parts = [RangeByteRequest(0, 2), RangeByteRequest(4, 6), SuffixByteRequest(1)]
    assert [b"12", b"56", b"8"] == asyncio.run(read("c/0", *parts))
    assert [b"8", b"12"] == asyncio.run(read("c/0", parts[2], parts[0]))
    assert ["c/0"] * 3 == source.asked
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(read("c/1", parts[0]))
    assert isinstance(caught.value.exceptions[0], FileNotFoundError)


def test_a_part_of_a_kept_object_needs_no_request(
    manager: MemoryManager, source: SlowStore
) -> None:
    """What is there as a whole is cut in RAM or on the disk."""
    asyncio.run(source._store.set("c/0", buffer(b"12345678")))
    store = CachedStore(source, manager, prefix="cached", tier="cold")

    async def read(part: Any) -> Any:
        found = await store.get("c/0", BUFFER, part)
        return found and found.to_bytes()

    assert b"12345678" == asyncio.run(read(None))
    assert b"23" == asyncio.run(read(RangeByteRequest(1, 3)))
    assert b"78" == asyncio.run(read(SuffixByteRequest(2)))
    assert ["c/0"] == source.asked


WORKER = """
import pickle, sys
import numpy as np, zarr
from memories.integrations.zarr import lost_arrays
lost_arrays.LOOKED_EVERY = 3600.0  # Otherwise a slow machine looks for the array more often.
store = pickle.loads(bytes.fromhex(sys.argv[1]))
for _ in range(2):
    total = int(zarr.open_group(store, mode="r")["cube"][:].sum())
again = pickle.loads(bytes.fromhex(sys.argv[1]))
print(total, store.reads()["cube"].requests, again.reads() == store.reads())
"""


@pytest.mark.parametrize("kept", [True, False])
def test_another_process_reads_what_is_kept_and_fetches_the_rest(
    tmp_path: Path, kept: bool
) -> None:
    """Workers of dask share the disk of the manager, and never fetch a chunk twice."""
    values = cube(LocalStore(tmp_path / "source"))
    options: dict[str, Any] = {"storage_path": tmp_path / "store"} if kept else {}
    with MemoryManager(*SIZES, **options) as manager:
        store = CachedStore(LocalStore(tmp_path / "source"), manager, max_age=None)
        zarr.open_group(store, mode="r")["cube"][:32]
        if kept:
            until(
                lambda: all(
                    manager.info(key).durable for key in manager.scan(store.prefix + "whole/")
                )
            )
        run = subprocess.run(
            [sys.executable, "-c", WORKER, pickle.dumps(store).hex()],
            capture_output=True,
            text=True,
            timeout=240,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
    assert run.stdout, run.stderr
    total, requests, shared = run.stdout.split()
    assert values.sum() == int(total)
    assert "True" == shared
    # Guesses beyond the edge included, and one question whether the array is there still.
    assert int(requests) <= (13 if kept else 25)


@pytest.mark.parametrize(
    ("key", "array"),
    [
        ("zarr.json", ""),
        ("cube/zarr.json", "cube"),
        ("a/cube/c/3/4", "a/cube"),
        ("cube/c", "cube"),
        ("cube/c.3.4", "cube"),
        ("cube/3.4", "cube"),
        ("cube/3/4", "cube"),
        ("cube/.zarray", "cube"),
        ("c/0", ""),
    ],
)
def test_a_key_belongs_to_its_array(key: str, array: str) -> None:
    """Counters are per array, in both versions of zarr's format."""
    assert array == array_of(key)


def test_a_store_that_is_opened_again_asks_for_nothing(
    manager: MemoryManager, tmp_path: Path
) -> None:
    """What is fresh stays so when the last store over the source is dropped, within its time."""
    source = LocalStore(tmp_path / "source")
    values = np.arange(4000.0).reshape(40, 100)
    zarr.create_array(source, name="a", data=values, chunks=(10, 50))
    requests = []
    for _ in range(3):
        store = CachedStore(source, manager, prefix="again", prefetch=False, absent_seconds=3600)
        assert np.array_equal(values, zarr.open_array(store, path="a", mode="r")[:])
        requests.append(store.reads()["a"].requests)
        del store
        gc.collect()
    assert requests[0] > 0
    assert [0, 0] == requests[1:]
