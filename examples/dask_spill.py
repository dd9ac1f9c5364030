"""A worker of dask that has more results than RAM: they lie in the cold tier, and come back.

It needs the extra `dask`.
"""

from __future__ import annotations

import importlib.util
import logging
import sys

if importlib.util.find_spec("distributed") is None:
    print("this example needs dask and distributed")
    sys.exit()

import dask.array as da
from distributed import Client, LocalCluster

from memories.dask import worker_data


def main() -> None:
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=2,
            memory_limit="400 MB",
            silence_logs=logging.ERROR,
            data=worker_data,
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster) as client,
    ):
        numbers = da.arange(30_000_000, chunks=1_000_000, dtype="float64").persist()
        print("mean:", numbers.mean().compute())
        print("largest:", (numbers + 1).max().compute())

        def state(dask_worker: object) -> tuple[int, int, str]:
            data = dask_worker.data  # type: ignore[attr-defined]
            return len(data.fast), len(data.slow), repr(data.manager)

        for in_ram, on_disk, manager in client.run(state).values():
            print(f"{in_ram} results in RAM, {on_disk} on the disk")
            print(manager)


if __name__ == "__main__":
    main()
