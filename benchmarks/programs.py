"""What programs already use, beside the tiers: `SpillBuffer` of dask, joblib's hashes, NumPy.

    TMPDIR=/dev/shm python benchmarks/programs.py dask      # Without the noise of a disk.

    python benchmarks/programs.py hash
    python benchmarks/programs.py imports   # `chrt -f 1` before it keeps other processes away.

Of dask, each run is a cluster of one worker process with two threads and a limit of 400 MB. It
keeps 576 MB of random numbers, reduces them twice, and is asked how much it wrote.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

ROUNDS = 3
IMPORTS = 15


@dataclass
class Options:
    """A dataclass as an argument."""

    rate: float = 0.1
    layers: tuple[int, ...] = (64, 64)
    name: str = "adam"


class Size(NamedTuple):
    """A named tuple as an argument."""

    width: int
    height: int


def in_turn(runs: dict[str, Callable[[], dict[str, float]]]) -> None:
    """Run everything in turn, and print the medians."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            found[name].append(run())
    for name, rounds in found.items():
        figures = {what: statistics.median(one[what] for one in rounds) for what in rounds[0]}
        print(name.ljust(32), "  ".join(f"{what} {figure:.2f}" for what, figure in figures.items()))


def dask_reduction(data: Any, environment: dict[str, str]) -> dict[str, float]:
    import dask
    import dask.array as da
    from distributed import Client, LocalCluster

    def state(dask_worker: Any) -> tuple[float, float, float]:
        metrics = dask_worker.data.cumulative_metrics
        times = dask_worker.monitor.proc.cpu_times()
        return (
            metrics["disk-write", "bytes"] / 1e6,
            metrics["disk-read", "bytes"] / 1e6,
            times.user + times.system,
        )

    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ": environment}),
        LocalCluster(
            n_workers=1, threads_per_worker=2, memory_limit="400 MB", dashboard_address=None,
            data=data, silence_logs=50, local_directory=os.environ.get("TMPDIR"),
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        client.wait_for_workers(1)
        start = time.perf_counter()
        numbers = da.random.random((9000, 8000), chunks=(1000, 1000)).persist()
        numbers.sum().compute(timeout=120)
        (numbers + numbers.T[:8000, :8000].mean()).std().compute(timeout=120)
        seconds = time.perf_counter() - start
        (written, read, processor) = next(iter(client.run(state).values()))
        events = client.get_events()
        restarts = sum("restart" in str(one) for topic in events.values() for one in topic)
    return {
        "seconds": seconds,
        "of the processor": processor,
        "MB written": written,
        "MB read": read,
        "restarts": restarts,
    }


def dask_rows() -> None:
    from memories.dask import worker_data

    trimmed = {"MALLOC_TRIM_THRESHOLD_": 65536}  # What dask sets.
    for title, environment in (("", trimmed), (", heap not trimmed by dask", {})):
        in_turn(
            {
                f"SpillBuffer{title}": lambda e=environment: dask_reduction(None, e),
                f"memories.dask{title}": lambda e=environment: dask_reduction(worker_data, e),
            }
        )


def hash_rows() -> None:
    import joblib
    import numpy as np
    import pandas as pd

    from memories import MemoryManager
    from memories.codecs.content_hash import content_hash

    def cached(value: Any) -> None:
        """Stand for a function whose results are kept."""

    rng = np.random.default_rng(0)
    table = {"a": rng.random(500_000), "b": rng.integers(0, 9, 500_000)}
    nested = {f"k{i}": [i, float(i), f"t{i}", (i, None)] for i in range(20_000)}
    values = {
        "array of 40 MB": rng.random(5_000_000),
        "every second row": rng.random((2000, 2000))[::2],
        "every second row and column": rng.random((2000, 2000))[::2, ::2],
        "frame of numbers": pd.DataFrame(table),
        "frame of texts": pd.DataFrame({"a": [f"x{i}" for i in range(50_000)]}),
        "500 arrays": [rng.random(1000) for _ in range(500)],
        "20,000 small lists": nested,
        "a configuration": {"rate": 0.1, "layers": [64, 64], "options": {"b1": 0.9, "b2": 0.99}},
        "a small array": rng.random(100),
        "a dict of an array and a number": {"image": rng.random(100), "width": 3},
        "dicts of arrays in a dict": {"a": {"x": rng.random(9), "y": rng.random(9)}, "b": [1, 2]},
        "a set": {1, 2, 3},
        "a small frame": pd.DataFrame({"a": rng.random(10), "b": ["x"] * 10, "c": range(10)}),
        "a series": pd.Series(rng.random(1000)),
        "a dataclass": Options(),
        "a named tuple": Size(3, 4),
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        MemoryManager("64MB", "64MB", "64MB", storage_path=folder) as manager,
    ):
        hashes = {
            "joblib": joblib.hash,
            "memories": content_hash,
            "key of joblib": joblib.Memory(folder, verbose=0).cache(cached)._get_args_id,
            "of memories": manager.cache(cached).cache_key,
        }
        for title, value in values.items():
            hash_row(title, value, hashes)


def hash_row(title: str, value: Any, hashes: dict[str, Callable[[Any], object]]) -> None:
    """Print the least time of each way to hash a value."""
    for hashed in hashes.values():
        hashed(value)
    start = time.perf_counter()
    hashes["joblib"](value)
    # Several calls: the first one after the others waits for memory that they have evicted.
    calls = max(5, int(0.02 / (time.perf_counter() - start)))
    best: dict[str, float] = {}
    for _ in range(5):  # In turn: a busy machine must not favour one.
        for name, hashed in hashes.items():
            start = time.perf_counter()
            for _ in range(calls):
                hashed(value)
            seconds = (time.perf_counter() - start) / calls
            best[name] = min(seconds, best.get(name, seconds))
    times = best["joblib"] / best["memories"]
    keys = best["key of joblib"] / best["of memories"]
    found = (f"{n} {s * 1e6:.1f} us " for n, s in best.items())
    print(title.ljust(32), *found, f"{times:.1f}, {keys:.1f}")


def import_rows() -> None:
    """What the imports of a manager add to that of NumPy, in new processes, in turn."""
    timed = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
    imports = {
        "numpy": "import numpy",
        "numpy, memories": "import numpy, memories",
        "numpy, MemoryManager": "import numpy; from memories import MemoryManager",
    }
    environment = {**os.environ}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # What is installed has its bytecode.
    found: dict[str, list[float]] = {name: [] for name in imports}
    for turn in range(IMPORTS + 1):
        for name, code in imports.items():
            run = subprocess.run(
                [sys.executable, "-c", timed.format(code)],
                env=environment, capture_output=True, text=True, check=True,
            )  # fmt: skip
            if turn:  # The first one may write bytecode.
                found[name].append(1e3 * float(run.stdout))
    floor = statistics.median(found["numpy"])
    for name, times in found.items():
        median = statistics.median(times)
        print(name.ljust(32), f"{median:.1f} ms, {median - floor:.1f} ms over numpy")


if __name__ == "__main__":
    rows = {"dask": dask_rows, "hash": hash_rows, "imports": import_rows}
    for name in sys.argv[1:] or rows:
        rows[name]()
