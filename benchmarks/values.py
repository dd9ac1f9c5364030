"""What encoding, checksums, decoding and compression cost, each beside its rival in the same run.

    python benchmarks/values.py

Times are the best of several rounds; read the ratios, not the times, and not on a busy machine.
"""

from __future__ import annotations

import json
import mmap
import os
import pickle
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numcodecs import blosc

from memories import codecs
from memories.codecs import frame

MB = 10**6


def best(work: Callable[[], Any], rounds: int = 25) -> float:
    """Return the shortest time that `work` took, in seconds."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def line(what: str, ours: float, theirs: float, bar: str) -> None:
    """Print one comparison."""
    print(f"{what:<58} {ours * 1e3:10.3f} ms {theirs * 1e3:10.3f} ms {ours / theirs:8.2f}x  {bar}")


def arrays() -> None:
    """Encode and decode one array."""
    array = np.random.default_rng(0).random(MB)
    target = np.empty_like(array)
    copy = best(lambda: np.copyto(target, array))
    packed = best(lambda: frame.pack(codecs.encode(array), key="k", version=1))
    line("encode 8 MB with its checksum / memcpy", packed, copy, "at most 0.70x")
    room = np.empty(array.nbytes + 100_000, np.uint8)
    into = best(lambda: frame.pack_into(codecs.encode(array), room, key="k", version=1))
    line("encode 8 MB into a caller's buffer / memcpy", into, copy, "at most 1.25x")
    line(
        "freeze_array 8 MB / array.copy()",
        best(lambda: codecs.freeze_array(array)),
        best(array.copy),
        "",
    )
    summed = best(lambda: xxhash.xxh3_64_intdigest(array))
    print(f"{'checksum':<58} {array.nbytes / summed / 1e9:10.1f} GB/s {'':>23} at least 5 GB/s")
    for nbytes in (10**4, 8 * MB, 800 * MB):
        data = frame.pack(codecs.encode(np.zeros(nbytes // 8)), key="k", version=1).join()
        took = best(lambda data=data: codecs.decode(frame.open_frame(data).parts(verify=False)))
        print(
            f"decode {nbytes / 1e6:8.2f} MB for a view {took * 1e6:34.1f} us {'':>23} under 100 us"
        )


def samples() -> dict[str, np.ndarray[Any, Any]]:
    """Return what is compressed."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.linspace(0, 9, 1500), np.linspace(0, 7, 1500))
    rows = [{"id": i, "name": f"user{i % 97}", "score": round(i * 0.37, 2)} for i in range(90_000)]
    return {
        "float32 smooth field": (np.sin(x) * np.cos(y) * 100).astype("f4"),
        "int16 raster": (np.cumsum(rng.integers(-3, 4, (2000, 2000)), axis=1) + 1000).astype("i2"),
        "sparse counts": rng.poisson(0.05, 3 * MB).astype("i4"),
        "float32 embeddings": rng.standard_normal((8000, 256)).astype("f4"),
        "JSON text": np.frombuffer(json.dumps(rows).encode(), np.uint8),
    }


def rivals(data: np.ndarray[Any, Any], names: tuple[str, ...]) -> list[tuple[float, float, str]]:
    """Return size, time and name of every setting of Blosc that a person might try."""
    found = []
    size = data.itemsize
    for name in names:
        for level in (1, 3, 5, 7):
            for shuffle in (0, 1, 2):
                start = time.perf_counter()
                stored = len(blosc.compress(data, name.encode(), level, shuffle, 0, size))
                found.append(
                    (stored, time.perf_counter() - start, f"{name}:{level} shuffle {shuffle}")
                )
    return found


def compression() -> None:
    """Compress as cold and glacier do, beside the best that Blosc can do in the same time."""
    for tier, spec, names in (
        ("cold", "fast", ("lz4",)),
        ("glacier", "high", ("zstd", "lz4")),
    ):
        for what, data in samples().items():
            parts = codecs.encode(data)
            start = time.perf_counter()
            packed = frame.pack(parts, key="k", version=1, compression=spec)
            took = time.perf_counter() - start
            ours = data.nbytes / packed.nbytes
            allowed = [r for r in rivals(data, names) if r[1] <= took * 1.1] or [
                (data.nbytes, 0, "raw")
            ]
            stored, _, name = min(allowed)
            theirs = data.nbytes / stored
            print(
                f"{tier:<8} {what:<22} ratio {ours:8.2f} in {took * 1e3:7.1f} ms; best of Blosc in "
                f"that time {theirs:8.2f} ({name}): {ours / theirs:5.2f}x  at least 0.95x or raw"
            )


def table(folder: Path) -> None:
    """Write and read a frame of 10 numeric and 5 text columns as a cold tier does."""
    import joblib
    import pandas

    rng = np.random.default_rng(0)
    rows = MB
    data: dict[str, Any] = {f"n{i}": rng.random(rows) for i in range(10)}
    words = np.array([f"word{i}" for i in range(5000)])
    data |= {f"s{i}": words[rng.integers(0, 5000, rows)] for i in range(5)}
    value = pandas.DataFrame(data)

    def ours(spec: str) -> None:
        path = folder / "ours"
        packed = frame.pack(codecs.encode(value), key="k", version=1, compression=spec)
        with path.open("wb", buffering=0) as file:
            for segment in packed.segments:
                file.write(segment)
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        got = codecs.decode(frame.open_frame(mapped).parts())
        assert len(got) == rows
        path.unlink()

    def pickled() -> None:
        path = folder / "pickle"
        path.write_bytes(pickle.dumps(value, protocol=5))
        assert len(pickle.loads(path.read_bytes())) == rows

    def joblib_load() -> None:
        joblib.load(folder / "joblib")

    def joblib_both() -> None:
        joblib.dump(value, folder / "joblib")
        joblib.load(folder / "joblib")

    mine, fast = best(lambda: ours("none"), 3), best(lambda: ours("fast"), 3)
    line("DataFrame to disk and back / pickle 5", mine, best(pickled, 3), "at most 0.33x")
    line("DataFrame to disk and back / joblib dump and load", mine, best(joblib_both, 3), "")
    line(
        "DataFrame to disk and back / joblib load alone",
        mine,
        best(joblib_load, 3),
        "at most 0.33x",
    )
    line("the same, compressed as cold does / pickle 5", fast, best(pickled, 3), "")


def main() -> None:
    """Print all of it."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    arrays()
    compression()
    with tempfile.TemporaryDirectory() as folder:
        table(Path(folder))


if __name__ == "__main__":
    main()
