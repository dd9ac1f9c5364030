"""What one `retrieve` from RAM costs, type by type: the figures of docs/values.md.

    python benchmarks/retrieve.py

The shortest of many, in microseconds; a package that is not installed is left out.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from memories import MemoryManager

MB = 10**6
SECONDS = 0.5  # For each type.


class Custom:
    """An object without a codec."""

    def __init__(self) -> None:
        self.array = np.zeros(1000)


def values() -> Iterator[tuple[str, Any]]:
    """Yield a value of each row of the table."""
    yield "str", "text"
    yield "ndarray, 8 MB", np.zeros(MB)
    yield "array of 1,000 objects", np.array(["x", 1] * 500, object)
    yield "masked array, 8 MB", np.ma.MaskedArray(np.zeros(MB), mask=np.zeros(MB, bool))
    yield "small dict", {"a": 1, "b": [1, 2, 3]}
    yield "dict of 10 arrays", {f"{i}": np.zeros(100) for i in range(10)}
    yield "list of 1,000 int", list(range(1000))
    yield "bytearray, 1 MB", bytearray(MB)
    yield "a pickled object", Custom()
    if importlib.util.find_spec("pandas"):
        import pandas

        yield "DataFrame, 10 columns", pandas.DataFrame(np.zeros((1000, 10)))
        yield "text Series, 1,000 items", pandas.Series(["a", "b"] * 500, dtype="str")
        yield "Index, 1,000 items", pandas.Index(np.arange(1000) * 2)
    if importlib.util.find_spec("polars"):
        import polars

        yield "polars frame", polars.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    if importlib.util.find_spec("pyarrow"):
        import pyarrow

        yield "pyarrow table", pyarrow.table({"a": [1, 2], "b": ["x", "y"]})
    if importlib.util.find_spec("xarray"):
        import xarray

        yield "xarray DataArray, 8 MB", xarray.DataArray(np.zeros((1000, 1000)), dims=("x", "y"))
    if importlib.util.find_spec("scipy"):
        import scipy.sparse

        yield "scipy.sparse, 100,000 items", scipy.sparse.eye(100_000, format="csr")
    if importlib.util.find_spec("torch"):
        import torch

        yield "torch tensor, 8 MB", torch.zeros(MB, dtype=torch.float64)
    if importlib.util.find_spec("jax"):
        import jax

        yield "JAX array, 8 MB", jax.numpy.zeros(2 * MB, jax.numpy.float32)


def shortest(manager: MemoryManager, key: str, **options: Any) -> float:
    """Return the microseconds of the fastest of many reads."""
    found, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        manager.retrieve(key, **options)
        found = min(found, time.perf_counter() - start)
    return found * 1e6


def main() -> None:
    """Print all of it."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with MemoryManager(1, 1, 1, migration=False) as manager:
        for name, value in values():
            manager.store(name, value, "warm")
            usual = shortest(manager, name)
            shared, own = (shortest(manager, name, copy=copy) for copy in (False, True))
            print(f"{name:<30} {usual:10.1f} us, copy=False {shared:10.1f}, copy=True {own:10.1f}")


if __name__ == "__main__":
    main()
