"""Items of a dataset are computed once, in whatever worker of a DataLoader."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.waiting import until

from memories import (
    InvalidOptionError,
    InvalidOptionTypeError,
    MemoryManager,
    SharedMemoryManager,
    UnsupportedTypeError,
)
from memories.torch import CachedDataset, cached

SIZES = ("1 MB", "8 MB", "64 MB")
COUNT = 12


class Squares:
    """A map-style dataset that leaves a mark of each item that is read of it."""

    def __init__(self, marks: Path, count: int = COUNT) -> None:
        self.marks, self.count = marks, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Any, int]:
        (self.marks / f"{index}-{time.time_ns()}-{os.getpid()}").touch()
        return np.full((3, 8), index, "float32"), index


class Scale:
    """A transform with a state."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, item: tuple[Any, int]) -> tuple[Any, int]:
        return item[0] * self.factor, item[1]


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


def read(marks: Path) -> list[int]:
    """Return the indices of all items that were read, in order."""
    return sorted(int(mark.name.split("-")[0]) for mark in marks.iterdir())


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[SharedMemoryManager]:
    with SharedMemoryManager(tmp_path / "store", cold_memory_size="64 MB") as manager:
        yield manager


@pytest.fixture
def torch_data() -> Any:
    return pytest.importorskip("torch.utils.data", reason="PyTorch is not installed")


def epoch(loader: Any) -> dict[int, Any]:
    return {int(index): array.numpy() for array, index in loader}


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("start", "persistent", "pinned"),
    [
        ("fork", False, False),
        ("forkserver", True, True),
        pytest.param("spawn", True, False, marks=pytest.mark.torture),  # It imports all anew.
    ],
)
def test_the_second_epoch_computes_nothing(
    shared: SharedMemoryManager,
    marks: Path,
    torch_data: Any,
    start: str,
    persistent: bool,
    pinned: bool,
) -> None:
    """And the first one nothing twice, although two workers share the work."""
    dataset = cached(Squares(marks), shared, transform=Scale(2.0))
    loader = torch_data.DataLoader(
        dataset,
        batch_size=None,
        num_workers=2,
        shuffle=True,
        multiprocessing_context=start,
        persistent_workers=persistent,
        pin_memory=pinned,
    )
    for _ in range(3):
        seen = epoch(loader)
        assert set(range(COUNT)) == set(seen)
        assert all((seen[n] == 2.0 * n).all() for n in seen)
        assert list(range(COUNT)) == read(marks)
    assert 2 <= len({mark.name.rsplit("-", 1)[1] for mark in marks.iterdir()} - {str(os.getpid())})
    # This process finds them, too, and so does the next program.
    assert 14.0 == dataset[7][0][0, 0]
    assert COUNT == len(read(marks)) == len(shared)


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_forked_workers_hand_items_to_a_plain_manager(marks: Path, torch_data: Any) -> None:
    """Only the process that opened a plain manager writes it."""
    with MemoryManager(*SIZES) as manager:
        dataset = cached(Squares(marks), manager, transform=Scale(3.0))
        loader = torch_data.DataLoader(
            dataset, batch_size=4, num_workers=2, multiprocessing_context="fork"
        )
        for _ in range(2):
            total = sum(float(array[:, 0, 0].sum()) for array, _ in loader)
            assert 3.0 * sum(range(COUNT)) == total
            until(lambda: COUNT == len(manager))
        assert list(range(COUNT)) == read(marks)


def test_a_worker_without_a_store_computes(marks: Path) -> None:
    """A plain manager without a directory cannot be opened by a spawned worker."""
    with MemoryManager(*SIZES) as manager:
        dataset = pickle.dumps(cached(Squares(marks, 2), manager))
        code = "import pickle, sys; print(pickle.loads(bytes.fromhex(sys.argv[1]))[1][1])"
        run = subprocess.run(
            [sys.executable, "-c", code, dataset.hex()],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert ("1\n", "") == (run.stdout, run.stderr)
        assert [1] == read(marks)


def test_items_are_the_callers_own(marks: Path) -> None:
    """An augmentation writes to what it gets, and must not change what is kept."""
    with MemoryManager(*SIZES) as manager:
        dataset = cached(Squares(marks), manager)
        for _ in range(3):
            array, index = dataset[5]
            assert (array == 5).all() and 5 == index
            array[:] = -1
        assert 5 == dataset[-7][1] == dataset[np.int64(5)][1]
        assert [5] == read(marks) and COUNT == len(dataset)
        assert 1 == dataset.cache_clear()
        assert list(range(COUNT)) == [index for _, index in dataset]
        assert isinstance(dataset, CachedDataset)


def test_other_data_and_other_transforms_have_other_items(marks: Path, tmp_path: Path) -> None:
    """Items of yesterday's transform would train a model of nothing."""
    (tmp_path / "other").mkdir()
    with MemoryManager(*SIZES) as manager:
        values = [
            cached(dataset, manager, transform=transform)[3][0][0, 0]
            for dataset in (Squares(marks), Squares(tmp_path / "other"))
            for transform in (None, Scale(2.0), Scale(4.0), lambda item: (item[0] + 1, item[1]))
        ]
        assert [3, 6, 12, 4] * 2 == values
        assert 8 == len(manager)
        by_version = cached(Squares(marks), manager, transform=Scale(2.0), version=1)
        assert 6 == by_version[3][0][0, 0]
        assert 6 == cached(Squares(marks), manager, transform=Scale(9.0), version=1)[3][0][0, 0]
        assert 27 == cached(Squares(marks), manager, transform=Scale(9.0), version=2)[3][0][0, 0]


def test_a_dataset_without_a_content_needs_a_version(marks: Path) -> None:
    """An open file, for example: it may have another content at the next start."""
    dataset: Any = Squares(marks)
    with (marks / "0").open("w") as dataset.file, MemoryManager(*SIZES) as manager:
        with pytest.raises(UnsupportedTypeError, match="version="):
            cached(dataset, manager)
        assert 3 == cached(dataset, manager, version="2026")[3][1]


def test_wrong_arguments_are_refused(marks: Path) -> None:
    with MemoryManager(*SIZES) as manager:
        with pytest.raises(InvalidOptionTypeError, match="SharedMemoryManager"):
            cached(Squares(marks), {})  # type: ignore[arg-type]
        with pytest.raises(InvalidOptionError, match="__len__"):
            cached(iter(()), manager)
        with pytest.raises(InvalidOptionError, match="sampler"):
            cached(Squares(marks), manager, shard=True)
        with pytest.raises(InvalidOptionError, match="tier"):
            cached(Squares(marks), manager, tier="tepid")  # type: ignore[arg-type]


def test_a_full_disk_costs_time_only(marks: Path) -> None:
    """Items are dropped for room, and computed again."""
    with MemoryManager("1 kB", "1 kB", "1 MB") as manager:
        dataset = cached(Squares(marks, 50), manager, transform=lambda it: np.random.rand(10_000))
        for _ in range(2):
            assert all(80_000 == dataset[n].nbytes for n in range(50))
        assert manager.stats().tiers["cold"].used_bytes <= 1_000_000


def stream_of(torch_data: Any, split: bool) -> Any:
    """Return an iterable dataset that leaves marks, and may give each worker its part."""

    class Stream(torch_data.IterableDataset):  # type: ignore[misc, name-defined]
        def __init__(self, marks: Path) -> None:
            self.marks = marks

        def __iter__(self) -> Iterator[Any]:
            info = torch_data.get_worker_info() if split else None
            first, step = (0, 1) if info is None else (info.id, info.num_workers)
            (self.marks / f"100-{time.time_ns()}-{os.getpid()}").touch()
            for n in range(first, COUNT, step):
                yield np.full(4, n, "float32"), n

    return Stream


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
@pytest.mark.parametrize("split", [True, False])
def test_a_stream_is_read_once(
    shared: SharedMemoryManager, marks: Path, torch_data: Any, split: bool
) -> None:
    """Whether the dataset shares out its items, or each worker would get all of them."""

    def transform(item: Any) -> Any:
        (marks / f"{item[1]}-{time.time_ns()}").touch()
        return item[0] * 2, item[1]

    dataset = cached(
        stream_of(torch_data, split)(marks), shared, transform=transform, shard=not split
    )
    loader = torch_data.DataLoader(
        dataset, batch_size=None, num_workers=2, multiprocessing_context="fork"
    )
    for _ in range(2):
        seen = epoch(loader)
        assert {n: 2 * n for n in range(COUNT)} == {n: int(seen[n][0]) for n in seen}
        assert [*range(COUNT), 100, 100] == read(marks)
    if not split:  # Any number of workers finds the items of a stream that is not split.
        assert COUNT == len(epoch(torch_data.DataLoader(dataset, batch_size=None)))
        assert [*range(COUNT), 100, 100] == read(marks)


def test_a_stream_with_a_gap_is_read_again(marks: Path, torch_data: Any) -> None:
    """An item that was dropped for room is computed, and the others are not."""
    computed = []

    def transform(item: Any) -> Any:
        computed.append(item[1])
        return item

    with MemoryManager(*SIZES) as manager:
        stream = stream_of(torch_data, True)(marks)
        dataset = cached(stream, manager, transform=transform, version=1)
        half = iter(dataset)
        assert [0, 1, 2] == [next(half)[1] for _ in range(3)]
        half.close()
        assert list(range(COUNT)) == [n for _, n in dataset] == [n for _, n in dataset]
        assert list(range(COUNT)) == computed
        (key,) = [key for key in manager if key.endswith("/7")]
        manager.delete(key)
        assert list(range(COUNT)) == [n for _, n in dataset]
        assert [*range(COUNT), 7] == computed
        assert dataset.cache_clear() == COUNT + 1


def test_a_dataset_of_hugging_face(marks: Path) -> None:
    """It is map-style, and knows its content by a fingerprint."""
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
    rows = datasets.Dataset.from_dict({"n": list(range(COUNT)), "t": ["text"] * COUNT})

    def transform(row: Any) -> Any:
        (marks / f"{row['n']}-{time.time_ns()}").touch()
        return row["n"] * 2, row["t"]

    with MemoryManager(*SIZES) as manager:
        for _ in range(2):
            dataset = cached(rows, manager, transform=transform, version=1)
            assert [(2 * n, "text") for n in range(COUNT)] == [dataset[n] for n in range(COUNT)]
        assert list(range(COUNT)) == read(marks)
        other = cached(rows.select(range(5, 7)), manager)
        assert {"n": 5, "t": "text"} == other[0] and 2 == len(other)


class Fingerprinted:
    """A stand-in for a dataset of Hugging Face: its content is behind a handle."""

    def __init__(self, fingerprint: str, rows: list[int]) -> None:
        self._fingerprint, self._rows, self._table = fingerprint, rows, iter(())

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, int]:
        return {"n": self._rows[index]}


def test_a_fingerprint_names_the_content() -> None:
    """The package is not installed everywhere; its datasets have this attribute."""
    with MemoryManager(*SIZES) as manager:
        one, two = (cached(Fingerprinted(str(n), [n]), manager) for n in (1, 2))
        assert ({"n": 1}, {"n": 2}) == (one[0], two[0])
        assert {"n": 1} == cached(Fingerprinted("1", [3]), manager)[0]
