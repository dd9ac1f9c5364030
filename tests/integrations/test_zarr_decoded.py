"""Decoded chunks give the values of zarr, bit for bit, and never those of a rewritten chunk."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

zarr = pytest.importorskip("zarr", minversion="3", reason="zarr 3 is not installed")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from tests.support.forking import in_child  # noqa: E402
from zarr.storage import LocalStore, MemoryStore  # noqa: E402
from zarr.testing.strategies import basic_indices, orthogonal_indices  # noqa: E402

from memories import InvalidOptionError, MemoryManager  # noqa: E402
from memories.integrations.zarr.decoded import DecodedPipeline  # noqa: E402
from memories.zarr import CachedStore, MemoriesStore, cache_decoded  # noqa: E402

SIZES = ("1 MB", "16 MB", "64 MB")
SHAPE = (20, 33, 17)
KINDS: dict[str, dict[str, Any]] = {
    "chunks": {"chunks": (6, 10, 5)},
    "shards": {"chunks": (2, 5, 5), "shards": (6, 10, 10)},
    "plain": {"chunks": (6, 10, 5), "compressors": None, "filters": None},
    "version 2": {"chunks": (6, 10, 5), "zarr_format": 2, "order": "F"},
}


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MemoryManager]:
    with MemoryManager(*SIZES, storage_path=tmp_path_factory.mktemp("m") / "store") as one:
        yield one


@pytest.fixture
def still() -> Iterator[MemoryManager]:
    """Return a manager that moves nothing: what is in RAM stays there."""
    with MemoryManager(*SIZES, migration=False, prefetch="off") as one:
        yield one


STORES = {
    "local": lambda manager, path: LocalStore(path),
    "cached": lambda manager, path: CachedStore(LocalStore(path), manager, prefetch=False),
    "tiers": lambda manager, path: MemoriesStore(manager, str(path)),
    "memory": lambda manager, path: MemoryStore(),
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, manager: MemoryManager, tmp_path: Path) -> Any:
    return STORES[request.param](manager, tmp_path)


def written(store: Any, kind: str, dtype: str = "int16") -> tuple[Any, np.ndarray[Any, Any]]:
    """Return an array whose last chunks are absent, and its values."""
    values = np.random.default_rng(1).integers(-9999, 9999, SHAPE).astype(dtype)
    values[12:] = 7
    array = zarr.create_array(
        store, name="cube", shape=SHAPE, dtype=dtype, fill_value=7, **KINDS[kind]
    )
    array[:12] = values[:12]
    return array, values


@pytest.mark.parametrize("kind", KINDS)
def test_every_selection_gives_what_zarr_gives(
    kind: str, store: Any, manager: MemoryManager
) -> None:
    """Slices, steps, ints, lists and masks, of chunks and of shards; the second time from RAM."""
    plain, values = written(store, kind)
    array = cache_decoded(plain, manager)

    @given(st.data())
    @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
    def compare(data: st.DataObject) -> None:
        index = data.draw(basic_indices(shape=SHAPE))
        for _ in range(2):
            found = array[index]
            assert np.array_equal(values[index], found)
            assert np.asarray(found).dtype == values.dtype
        zarr_index, numpy_index = data.draw(orthogonal_indices(shape=SHAPE))
        assert np.array_equal(values[numpy_index], array.oindex[zarr_index])

    compare()
    mask = values > 100
    assert np.array_equal(values[mask], array.vindex[mask])
    points = ([0, 5, 19], [0, 32, 3], [16, 0, 2])
    assert np.array_equal(values[points], array.vindex[points])
    assert np.array_equal(values, array[...])


BOXES: list[Any] = [
    (slice(12), ..., slice(2, 9)), (3, slice(None), -1), (slice(-15, -9), np.int64(7)),
    (slice(5, 12), 4, ...),
    (slice(0, 12), slice(9, 31), slice(4, 11)), slice(1, 2),
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_box_of_decoded_chunks_needs_no_event_loop(
    kind: str, store: Any, still: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All threads share the one of zarr; a box in RAM is put together in the thread that reads."""
    plain, values = written(store, kind)
    array = cache_decoded(plain, still)
    assert np.array_equal(values[:12], array[:12])

    async def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a decoded chunk is not found")

    expected = [(plain[box], plain.oindex[box]) for box in BOXES]
    monkeypatch.setattr(DecodedPipeline, "read", refuse)
    for box, found in zip(BOXES, expected, strict=True):
        for one, other in zip(found, (array[box], array.oindex[box]), strict=True):
            assert np.array_equal(values[box], other) and one.dtype == other.dtype
            assert one.flags.c_contiguous == other.flags.c_contiguous
            assert other.flags.writeable
    with ThreadPoolExecutor(8) as pool:
        for box, found in zip(BOXES * 20, pool.map(array.__getitem__, BOXES * 20), strict=True):
            assert np.array_equal(values[box], found)
    with pytest.raises(AssertionError, match="not found"):
        array[10:14]  # The last chunks are absent from the store.


@pytest.mark.parametrize("dtype", ["bool", "float64", "complex64", ">i4", "M8[s]", "S3"])
@pytest.mark.filterwarnings("ignore")  # Of data types that zarr has not specified.
def test_every_type_comes_back(dtype: str, manager: MemoryManager, tmp_path: Path) -> None:
    """NaN and negative zero, too: bits are compared."""
    values = np.arange(600).reshape(20, 30).astype(dtype)
    if dtype == "float64":
        values[0, :3] = np.nan, -0.0, np.inf
    plain = zarr.create_array(LocalStore(tmp_path), name="cube", data=values, chunks=(7, 8))
    array = cache_decoded(plain, manager)
    for _ in range(2):
        assert values.tobytes() == array[:].astype(values.dtype).tobytes()
        assert plain[:].dtype == array[:].dtype


def test_texts_are_read_as_before(manager: MemoryManager, tmp_path: Path) -> None:
    """Chunks of Python objects are not kept."""
    store = LocalStore(tmp_path)
    plain = zarr.create_array(store, name="texts", shape=(9,), chunks=(4,), dtype=str)
    plain[:] = np.array(list("abcdefghi"), dtype=object)
    array = cache_decoded(plain, manager)
    for _ in range(2):
        assert list("abcdefghi") == list(array[:])


@pytest.mark.parametrize("kind", ["chunks", "shards"])
@pytest.mark.parametrize("writer", ["itself", "another"])
def test_a_rewritten_chunk_is_read_anew(
    kind: str, writer: str, store: Any, manager: MemoryManager
) -> None:
    """By the same array, and by another one of the same store."""
    plain, values = written(store, kind)
    array = cache_decoded(plain, manager, max_age=0.2)
    for number in range(2):
        for _ in range(3):
            assert np.array_equal(values, array[:])
        (array if writer == "itself" else plain)[3:8, number] = number
        values[3:8, number] = number
        if writer == "another" and isinstance(store, MemoryStore):
            time.sleep(0.25)  # It has no versions, but an age.


@pytest.mark.parametrize("kind", ["chunks", "shards"])
def test_the_second_read_decodes_nothing(
    kind: str, store: Any, manager: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is what it is for."""
    plain, values = written(store, kind)
    array = cache_decoded(plain, manager)
    for _ in range(2):
        assert np.array_equal(values[:12], array[:12])

    async def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("a chunk was decoded again")

    pipeline = array.async_array.codec_pipeline.inner
    monkeypatch.setattr(type(pipeline), "read", refuse)
    assert np.array_equal(values[:12], array[:12])


def test_decoded_chunks_are_in_warm_only_and_leave_for_room(tmp_path: Path) -> None:
    """They take no disk, and no budget is exceeded."""
    values = np.random.default_rng(1).integers(0, 1 << 30, (256, 1024), "int32")
    plain = zarr.create_array(LocalStore(tmp_path), name="cube", data=values, chunks=(64, 64))
    with MemoryManager("1 MB", "300 kB", "1 MB", storage_path=tmp_path / "store") as manager:
        array = cache_decoded(plain, manager)
        for _ in range(3):
            assert np.array_equal(values, array[:])
            assert {"warm"} == {manager.get_tier(key) for key in manager}
            warm = manager.stats().tiers["warm"]
            assert warm.used_bytes <= warm.configured_bytes
        huge = zarr.create_array(LocalStore(tmp_path), name="huge", data=values, chunks=(256, 1024))
        assert np.array_equal(values, cache_decoded(huge, manager)[:])


def test_groups_give_such_arrays(manager: MemoryManager, tmp_path: Path) -> None:
    """Whichever way an array is taken out of a group, or of a group in it."""
    group = zarr.create_group(LocalStore(tmp_path))
    values = np.arange(100).reshape(10, 10)
    group.create_group("below").create_array("cube", data=values, chunks=(4, 4))
    group.create_array("cube", data=values, chunks=(4, 4))
    cached = cache_decoded(group, manager)
    found = [cached["cube"], cached["below/cube"], cached["below"]["cube"], cached.get("cube")]
    found += [*cached.array_values(), *(array for _, array in cached.arrays())]
    found += [node for _, node in cached.members(max_depth=None) if isinstance(node, zarr.Array)]
    assert 8 == len(found)
    for array in found:
        assert "DecodedPipeline" == type(array.async_array.codec_pipeline).__name__
        assert np.array_equal(values, array[:])
    assert cached.get("absent") is None
    assert group.attrs.asdict() == cached.attrs.asdict()


def test_a_pickled_array_reads_the_same(store: Any, manager: MemoryManager) -> None:
    """Dask sends arrays to its workers; a fork has the manager of its parent."""
    plain, values = written(store, "chunks")
    array = cache_decoded(plain, manager)
    assert np.array_equal(values, array[:])
    again = pickle.loads(pickle.dumps(array))
    assert np.array_equal(values, again[:])
    assert "True" == in_child(lambda: np.array_equal(values, array[:]))


def test_a_node_and_a_manager_are_needed(manager: MemoryManager, tmp_path: Path) -> None:
    """A wrong call says what is wrong, and does not fail at the first read."""
    with pytest.raises(InvalidOptionError, match="must be an array or a group"):
        cache_decoded(np.zeros(3), manager)  # type: ignore[type-var]
    plain = zarr.create_array(LocalStore(tmp_path), name="cube", data=np.zeros(3))
    with pytest.raises(InvalidOptionError, match="must be a MemoryManager"):
        cache_decoded(plain)
    with pytest.raises(InvalidOptionError, match="max_age="):
        cache_decoded(plain, manager, max_age=-1)
