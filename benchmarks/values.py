"""What encoding, checksums, decoding and compression cost, each beside its rival in the same run.

    python benchmarks/values.py

Times are the best of several rounds; read the ratios, not the times, and not on a busy machine.
"""

from __future__ import annotations

import json
import mmap
import os
import pickle
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numcodecs import blosc

from memories import MemoryManager, codecs
from memories.frames import writer
from memories.frames.reader import open_frame

MB = 10**6


Work = Callable[[], Any]


def best(candidates: dict[str, Work], rounds: int) -> dict[str, float]:
    """Return the shortest seconds of each; they take turns, to share the machine's moods."""
    shortest = dict.fromkeys(candidates, float("inf"))
    names = list(candidates)
    for _ in range(rounds):
        random.shuffle(names)
        for name in names:
            start = time.perf_counter()
            candidates[name]()
            shortest[name] = min(shortest[name], time.perf_counter() - start)
    return shortest


def line(what: str, ours: float, theirs: float, bar: str) -> None:
    """Print one comparison."""
    print(f"{what:<58} {ours * 1e3:10.3f} ms {theirs * 1e3:10.3f} ms {ours / theirs:8.2f}x  {bar}")


def arrays() -> None:
    """Encode and decode one array."""
    array = np.random.default_rng(0).random(MB)
    target, room = np.empty_like(array), np.empty(array.nbytes + 100_000, np.uint8)
    took = best(
        {
            "copy": lambda: np.copyto(target, array),
            "pack": lambda: writer.pack(codecs.encode(array), key="k", version=1),
            "into": lambda: writer.pack_into(codecs.encode(array), room, key="k", version=1),
            "freeze": lambda: codecs.freeze_array(array),
            "array.copy": array.copy,
            "sum": lambda: xxhash.xxh3_64_intdigest(array),
        },
        400,
    )
    line("encode 8 MB with its checksum / memcpy", took["pack"], took["copy"], "at most 0.70x")
    line("encode 8 MB into a buffer / memcpy", took["into"], took["copy"], "at most 1.25x")
    line("freeze_array 8 MB / array.copy()", took["freeze"], took["array.copy"], "")
    speed = array.nbytes / took["sum"] / 1e9
    print(f"{'checksum':<58} {speed:10.1f} GB/s {'':>23} at least 5 GB/s")
    for nbytes in (10**4, 8 * MB, 800 * MB):
        data = writer.pack(codecs.encode(np.zeros(nbytes // 8)), key="k", version=1).join()

        def decode(data: bytes = data) -> Any:
            return codecs.decode(open_frame(data).parts(verify=False))

        micros = best({"decode": decode}, 100)["decode"] * 1e6
        print(f"decode {nbytes / 1e6:8.2f} MB for a view {micros:34.1f} us {'':>23} under 100 us")


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
            packed = writer.pack(parts, key="k", version=1, compression=spec)
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


def a_table() -> Any:
    """Return a DataFrame of 10 numeric and 5 text columns."""
    import pandas

    rng = np.random.default_rng(0)
    data: dict[str, Any] = {f"n{i}": rng.random(MB) for i in range(10)}
    words = np.array([f"word{i}" for i in range(5000)])
    return pandas.DataFrame(data | {f"s{i}": words[rng.integers(0, 5000, MB)] for i in range(5)})


def table(folder: Path) -> None:
    """Write and read a table: the bytes alone, and through a manager's cold tier."""
    import joblib

    value = a_table()
    parts = codecs.encode(value)

    def put() -> Any:
        packed = writer.pack(codecs.encode(value), key="k", version=1)
        with (folder / "ours").open("wb", buffering=0) as file:
            for segment in packed.segments:
                file.write(segment)

    def get() -> Any:
        with (folder / "ours").open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return codecs.decode(open_frame(mapped).parts())

    def both() -> None:
        (folder / "ours").unlink(missing_ok=True)
        put()
        get()

    def pickled() -> None:
        (folder / "pickle").unlink(missing_ok=True)
        (folder / "pickle").write_bytes(pickle.dumps(value, protocol=5))
        pickle.loads((folder / "pickle").read_bytes())

    def bare() -> None:
        (folder / "bare").unlink(missing_ok=True)
        with (folder / "bare").open("wb", buffering=0) as file:
            for buffer in parts.buffers:
                file.write(buffer)

    manager = {
        name: MemoryManager(storage_path=folder / name, compression={"cold": spec}, migration=False)
        for name, spec in (("raw", "none"), ("auto", "auto"))
    }

    def cold(name: str) -> None:
        manager[name].store("table", value, "cold")
        manager[name].retrieve("table")

    def cached() -> Any:
        return joblib.load(folder / "joblib")

    joblib.dump(value, folder / "joblib")
    put()
    took = best(
        {
            "both": both, "get": get, "pickle": pickled, "joblib": cached, "bare": bare,
            "raw": lambda: cold("raw"), "auto": lambda: cold("auto"),
        },
        5,
    )  # fmt: skip
    for one in manager.values():
        one.cleanup()
    bar = "at most 0.33x"
    line("DataFrame to disk and back / pickle 5", took["both"], took["pickle"], bar)
    line("DataFrame from disk / joblib's cached load", took["get"], took["joblib"], bar)
    line("DataFrame to disk and back / joblib's cached load", took["both"], took["joblib"], bar)
    line("  the bytes to disk alone / joblib's cached load", took["bare"], took["joblib"], "")
    line("store and retrieve, cold, raw / pickle 5", took["raw"], took["pickle"], bar)
    line("store and retrieve, cold, as it is set / pickle 5", took["auto"], took["pickle"], bar)
    line("  the same / joblib's cached load", took["auto"], took["joblib"], bar)


def main() -> None:
    """Print all of it."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    arrays()
    compression()
    with tempfile.TemporaryDirectory() as folder:
        table(Path(folder))


if __name__ == "__main__":
    main()
