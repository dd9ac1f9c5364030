"""Day 5: vectors of documents, looked up in batches, a few of them changed.

A process fills the store, looks up batches of a skewed distribution, changes one vector of a
hundred, looks up again; a second process opens the store and looks up once more. All twins must
find the same vectors. diskcache gets a twentieth of the vectors; its figures are per vector.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from days.floor import Floor
from days.judging import Bar, Judgement, Run, Scale
from days.running import missing, run

WIDTH = 384
BATCH = 256
FILL = 10_000
FLOOR = "the floor"


class Vectors(Protocol):
    """A store of vectors by number."""

    def write(self, numbers: Iterable[int], vectors: Any) -> None:
        """Keep vectors, in place of earlier ones."""

    def read(self, numbers: list[int]) -> Any:
        """Return one vector a row, or a list of them."""

    def close(self) -> None:
        """Write what must survive."""


class Memories:
    """`store_many` and `retrieve_many` of a manager with room for a fifth of the vectors in RAM."""

    def __init__(self, folder: Path, count: int) -> None:
        from memories import MemoryManager

        room = count * WIDTH * 4 // 10
        self._manager = MemoryManager(
            f"{room}B", f"{room}B", "20GB", storage_path=folder / "vectors"
        )

    def write(self, numbers: Iterable[int], vectors: Any) -> None:
        named = {f"vector/{n}": vector for n, vector in zip(numbers, vectors, strict=True)}
        self._manager.store_many(named, tier="cold")

    def read(self, numbers: list[int]) -> Any:
        keys = [f"vector/{number}" for number in numbers]
        found = self._manager.retrieve_many(keys)
        return [found[key] for key in keys]  # Some are asked for twice.

    def close(self) -> None:
        self._manager.cleanup()


class Diskcache:
    """diskcache, a transaction for each batch."""

    def __init__(self, folder: Path, count: int) -> None:
        import diskcache

        self._cache = diskcache.Cache(folder / "vectors", size_limit=10**11)

    def write(self, numbers: Iterable[int], vectors: Any) -> None:
        with self._cache.transact():
            for number, vector in zip(numbers, vectors, strict=True):
                self._cache[f"vector/{number}"] = vector

    def read(self, numbers: list[int]) -> Any:
        with self._cache.transact():
            return [self._cache[f"vector/{number}"] for number in numbers]

    def close(self) -> None:
        self._cache.close()


class Lmdb:
    """LMDB, a transaction for each batch."""

    def __init__(self, folder: Path, count: int) -> None:
        import lmdb

        self._database = lmdb.open(str(folder / "vectors"), map_size=10**10, sync=False)

    def write(self, numbers: Iterable[int], vectors: Any) -> None:
        with self._database.begin(write=True) as transaction:
            for number, vector in zip(numbers, vectors, strict=True):
                transaction.put(f"vector/{number}".encode(), vector)

    def read(self, numbers: list[int]) -> Any:
        with self._database.begin() as transaction:
            return [
                np.frombuffer(transaction.get(f"vector/{number}".encode()), np.float32)
                for number in numbers
            ]

    def close(self) -> None:
        self._database.sync()
        self._database.close()


class AtTheFloor:
    """The least program with our promises, and RAM for as many vectors as `Memories` has."""

    def __init__(self, folder: Path, count: int) -> None:
        self._floor = Floor(folder / "vectors", count * WIDTH * 4 // 5)

    def write(self, numbers: Iterable[int], vectors: Any) -> None:
        self._floor.put({f"vector/{n}": vector for n, vector in zip(numbers, vectors, strict=True)})

    def read(self, numbers: list[int]) -> Any:
        return [
            np.frombuffer(self._floor.get(f"vector/{number}"), np.float32) for number in numbers
        ]

    def close(self) -> None:
        self._floor.close()


class Npy:
    """One `.npy` file as a memory map: no keys, no checksums, a fixed number of vectors."""

    def __init__(self, folder: Path, count: int) -> None:
        path = folder / "vectors.npy"
        mode = "r+" if path.exists() else "w+"
        self._array = np.lib.format.open_memmap(path, mode, np.float32, (count, WIDTH))

    def write(self, numbers: Iterable[int], vectors: Any) -> None:
        self._array[list(numbers)] = vectors

    def read(self, numbers: list[int]) -> Any:
        return self._array[numbers]

    def close(self) -> None:
        self._array.flush()


class InDict:
    """A dict in RAM, kept in a pickle between the processes."""

    def __init__(self, folder: Path, count: int) -> None:
        import pickle

        self._path = folder / "vectors.pickle"
        self._dict: dict[str, Any] = {}
        if self._path.exists():
            self._dict = pickle.loads(self._path.read_bytes())

    def write(self, numbers: Iterable[int], vectors: Any) -> None:
        for number, vector in zip(numbers, vectors, strict=True):
            self._dict[f"vector/{number}"] = vector.copy()

    def read(self, numbers: list[int]) -> Any:
        return [self._dict[f"vector/{number}"] for number in numbers]

    def close(self) -> None:
        import pickle

        with self._path.open("wb") as file:
            pickle.dump(self._dict, file, protocol=5)


TWINS: dict[str, tuple[Callable[[Path, int], Vectors], int, str]] = {
    "memories": (Memories, 1, ""),
    "LMDB": (Lmdb, 1, "lmdb"),
    "diskcache, a twentieth": (Diskcache, 20, "diskcache"),
    ".npy, mapped": (Npy, 1, ""),
    "dict, pickled at the end": (InDict, 1, ""),
    FLOOR: (AtTheFloor, 1, ""),
}


def _vectors(first: int, count: int, edition: int) -> Any:
    generator = np.random.default_rng((edition, first))
    return generator.standard_normal((count, WIDTH), dtype=np.float32)


def _batches(count: int, lookups: int, seed: int) -> Iterator[list[int]]:
    """Yield batches in which a few vectors are asked for again and again."""
    generator = np.random.default_rng(seed)
    names = np.random.default_rng(0).permutation(count)
    for _ in range(lookups // BATCH):
        ranks = generator.zipf(1.1, 4 * BATCH)
        ranks = ranks[ranks <= count][:BATCH]
        yield names[ranks - 1].tolist()


def work(folder: Path, twin: str, count: int, lookups: int, again: bool) -> dict[str, Any]:
    """Fill, look up, change and look up; or open again and look up."""
    seconds: dict[str, float] = {}
    started = time.perf_counter()

    def lap(name: str, operations: int) -> None:
        nonlocal started
        seconds[name] = (time.perf_counter() - started) / operations
        started = time.perf_counter()

    def look_up(seed: int) -> float:
        """Return the sum of all that is found; the batches are made before the time counts."""
        nonlocal started
        batches = list(_batches(count, lookups, seed))
        started = time.perf_counter()
        total = 0.0
        for batch in batches:
            total += float(sum(vector[0] for vector in store.read(batch)))
        return total

    store = TWINS[twin][0](folder, count)
    lap("open", 1)
    sums: list[float] = []
    if not again:
        spent = 0.0
        for first in range(0, count, FILL):
            vectors = _vectors(first, min(FILL, count - first), 1)
            started = time.perf_counter()
            store.write(range(first, first + len(vectors)), vectors)
            spent += time.perf_counter() - started
        seconds["fill"] = spent / count
        sums.append(look_up(1))
        lap("look up", lookups)
        changed = np.random.default_rng(5).choice(count, count // 100, replace=False).tolist()
        vectors = _vectors(0, len(changed), 2)
        started = time.perf_counter()
        store.write(changed, vectors)
        lap("change", len(changed))
    sums.append(look_up(2))
    lap("look up again", lookups)
    store.close()
    lap("close", 1)
    return {"sums": sums, "seconds": seconds}


def judge(scale: Scale, folder: Path) -> Judgement:
    """Let each twin do the work, in two processes, and compare what they find."""
    count, lookups = (20_000, 5_120) if scale is Scale.SMALL else (1_000_000, 256_000)
    judgement = Judgement(f"Embeddings: {count:,} vectors of {WIDTH} float32", {}, [])
    runs: dict[str, Run] = {}
    for name, (_, share, needs) in TWINS.items():
        if needs and (why := missing(needs)):
            judgement.absent[name] = why
            continue
        place = folder / needs / name.split(",")[0]
        sizes = (count // share, lookups // share)
        first = run(work, place, name, *sizes, False, name=name)
        second = run(work, place, name, *sizes, True, name=f"{name}, opened again")
        runs |= {first.program: first, second.program: second}
    right = runs[".npy, mapped"].answer["sums"]
    for name, one in runs.items():
        if "a twentieth" not in name:
            assert one.answer["sums"] == right[-len(one.answer["sums"]) :], name
        for phase, took in one.answer["seconds"].items():
            judgement.facts[f"{name}: {phase}, us"] = round(took * 1e6, 1)
    judgement.runs = runs
    ours = runs["memories"].answer["seconds"]
    rooms = count * WIDTH * 4 // 5
    over = (runs["memories"].peak_rss - rooms) / 1e6  # The values of a batch, too.
    judgement.bars.append(Bar("RAM beyond the tiers' budgets, MB", over, 250, counted=True))
    for twin, phase, limit in (
        ("diskcache, a twentieth", "fill", 0.33),
        ("diskcache, a twentieth", "look up", 0.8),
        ("diskcache, a twentieth", "look up again", 0.8),
        ("LMDB", "look up", 5.0),
    ):
        if twin in runs:
            theirs = runs[twin].answer["seconds"][phase]
            judgement.bars.append(
                Bar(f"{phase}, of {twin.split(',')[0]}", ours[phase] / theirs, limit,
                    floor=runs[FLOOR].answer["seconds"][phase] / theirs)
            )  # fmt: skip
    return judgement
