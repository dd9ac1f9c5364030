"""Items of a dataset in the second epoch: the tiers beside files, LMDB and tar shards.

    python benchmarks/torch_items.py [--items N]

An item is a float32 image of 3 x 96 x 96 (110 KB) with its label. Every candidate is read by the
same DataLoader, with two workers and with none, shuffled where it can be. It needs torch and lmdb.
"""

from __future__ import annotations

import argparse
import io
import pickle
import shutil
import statistics
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from memories import SharedMemoryManager
from memories.torch import cached

ROUNDS = 3
SHAPE = (3, 96, 96)


class Source:
    """Makes an item; this is what a cache saves."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return torch.from_numpy(np.random.default_rng(index).random(SHAPE, dtype="f4")), index


class Files(Source):
    """One file of `torch.save` for each item."""

    def __init__(self, source: Source, where: Path) -> None:
        super().__init__(len(source))
        self.where = where
        where.mkdir()
        for index in range(len(source)):
            torch.save(source[index], where / f"{index}.pt")

    def __getitem__(self, index: int) -> tuple[Any, int]:
        item: tuple[Any, int] = torch.load(self.where / f"{index}.pt", weights_only=True)
        return item


class Lmdb(Source):
    """An array and its label, as their bytes."""

    def __init__(self, source: Source, where: Path) -> None:
        super().__init__(len(source))
        self.where = str(where)
        self._environment: Any = None
        with (
            lmdb.open(self.where, map_size=1 << 32) as environment,
            environment.begin(write=True) as transaction,
        ):
            for index in range(len(source)):
                array, label = source[index]
                transaction.put(
                    str(index).encode(), label.to_bytes(8, "little") + array.numpy().tobytes()
                )

    def __getitem__(self, index: int) -> tuple[Any, int]:
        if self._environment is None:  # It must not be opened before the fork.
            self._environment = lmdb.open(self.where, readonly=True, lock=False)
        with self._environment.begin(buffers=True) as transaction:
            kept = transaction.get(str(index).encode())
            array = np.frombuffer(kept[8:], "f4").reshape(SHAPE).copy()
            return torch.from_numpy(array), int.from_bytes(kept[:8], "little")


class Shards(IterableDataset[Any]):
    """Tar files as WebDataset reads them: one after the other, each by one worker."""

    def __init__(self, source: Source, where: Path, shards: int = 8) -> None:
        where.mkdir()
        self.count = len(source)
        self.paths = [where / f"{number}.tar" for number in range(shards)]
        for number, path in enumerate(self.paths):
            with tarfile.open(path, "w") as tar:
                for index in range(number, len(source), shards):
                    data = io.BytesIO()
                    array, label = source[index]
                    pickle.dump((array.numpy(), label), data, protocol=5)
                    info = tarfile.TarInfo(f"{index}.pyd")
                    info.size = data.tell()
                    data.seek(0)
                    tar.addfile(info, data)

    def __iter__(self) -> Iterator[Any]:
        worker = torch.utils.data.get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for path in self.paths[first::step]:
            with tarfile.open(path, "r|") as tar:
                for info in tar:
                    file = tar.extractfile(info)
                    assert file is not None
                    array, label = pickle.loads(file.read())
                    yield torch.from_numpy(array), label


def epoch(dataset: Any, workers: int) -> float:
    shuffle = not isinstance(dataset, IterableDataset)
    loader = DataLoader(dataset, batch_size=32, num_workers=workers, shuffle=shuffle)
    start, seen = time.perf_counter(), 0
    for arrays, _ in loader:
        seen += len(arrays)
    assert seen == dataset.count if hasattr(dataset, "count") else seen
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1500)
    count = parser.parse_args().items
    where = Path(tempfile.mkdtemp(prefix="torch-items-"))
    source = Source(count)
    try:
        with SharedMemoryManager(where / "store", cold_memory_size="4 GB") as manager:
            ours = cached(source, manager)
            print(f"{count} items; seconds of an epoch")
            print(f"first epoch of memories, two workers, which writes: {epoch(ours, 2):.2f}")
            candidates = {
                "memories.torch.cached": ours,
                "torch.save files": Files(source, where / "files"),
                "LMDB": Lmdb(source, where / "lmdb"),
                "tar shards, not shuffled": Shards(source, where / "tar"),
                "no cache: the transform": source,
            }
            for workers in (2, 0):
                found: dict[str, list[float]] = {name: [] for name in candidates}
                for _ in range(ROUNDS):
                    for name, dataset in candidates.items():
                        found[name].append(epoch(dataset, workers))
                for name, seconds in found.items():
                    print(f"{workers} workers  {name:28} {statistics.median(seconds):.2f}")
    finally:
        shutil.rmtree(where)


if __name__ == "__main__":
    main()
