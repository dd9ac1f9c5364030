"""Snapshots side by side with raw writes and reads and with what people use instead, in one run.

Every peer writes the same bytes and syncs them. Run it on an idle machine:
`python benchmarks/snapshot.py [--gigabytes 5] [--keys 1000000] [--only create,keys]`; by default
it is a fifth of that, and takes some two minutes.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import pickle
import shutil
import statistics
import tarfile
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from memories import MemoryManager
from memories.snapshot.atomicfile import AtomicFile

MEGABYTE = 10**6
SIZES = [100 * MEGABYTE, 8 * MEGABYTE, 33 * MEGABYTE, 1 * MEGABYTE, 200_000, 5_000]


def mixed_arrays(total: int) -> dict[str, Any]:
    """Return arrays of `total` bytes in six sizes, all views of one incompressible buffer."""
    pool = np.random.default_rng(0).integers(0, 256, 256 * MEGABYTE, dtype=np.uint8)
    arrays, used, n = {}, 0, 0
    while used < total:
        size = SIZES[n % len(SIZES)]
        start = (n * 1_234_567) % (pool.size - size)
        arrays[f"tile/{n:05}"] = pool[start - start % 8 : start - start % 8 + size]
        used, n = used + size, n + 1
    return arrays


@contextmanager
def measured(label: str, total: int, results: dict[str, float]) -> Iterator[None]:
    """Time a block; print its rate and how far it raised the peak of resident memory."""
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_kilobytes()
    started = time.perf_counter()
    yield
    seconds = time.perf_counter() - started
    results[label] = total / seconds
    extra = (peak_kilobytes() - before) / 1000
    print(f"  {label:34} {seconds:8.3f} s  {total / seconds / 1e9:6.2f} GB/s  +{extra:6.0f} MB")


@contextmanager
def measured_keys(label: str, keys: int) -> Iterator[None]:
    """Time a block that treats `keys` keys; print the time of each and the peak of memory."""
    Path("/proc/self/clear_refs").write_text("5")
    before, started, busy = peak_kilobytes(), time.perf_counter(), time.process_time()
    yield
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    extra = (peak_kilobytes() - before) / 1000
    each = f"{seconds / keys * 1e6:6.1f} us a key ({busy / keys * 1e6:.1f} of the processor)"
    print(f"  {label:34} {seconds:8.3f} s  {each}  +{extra:6.0f} MB")


def peak_kilobytes() -> int:
    """Return the peak of resident memory since it was last cleared."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


BARS = {"create_snapshot": 0.8, "restore": 0.8, "restore wait=True": 0.6}


def ratios(results: dict[str, float], to: str) -> None:
    """Print every result of a run as a ratio to one of them, beside the bar that it has to pass."""
    for name, rate in results.items():
        bar = f"  (bar: {BARS[name]})" if name in BARS else ""
        if name != to:
            print(f"  {name:34} {rate / results[to]:8.2f}x of {to}{bar}")


def sync(path: Path) -> None:
    """Make a finished file durable."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_raw(path: Path, arrays: dict[str, Any]) -> None:
    """Write the bytes one after the other, as a person would who wants them fast."""
    with path.open("wb", buffering=0) as file:
        for array in arrays.values():
            file.write(memoryview(array))
    sync(path)


def write_early(path: Path, arrays: dict[str, Any]) -> None:
    """Write the bytes one after the other, with the write-back started at once."""
    with AtomicFile(path) as file:
        file.write([memoryview(array) for array in arrays.values()])
        file.commit()


def write_npz(path: Path, arrays: dict[str, Any]) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)
    sync(path)


def write_zip(path: Path, arrays: dict[str, Any]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for key, array in arrays.items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                member.write(memoryview(array))
    sync(path)


def write_tar(path: Path, arrays: dict[str, Any]) -> None:
    with tarfile.open(path, "w") as archive:
        for key, array in arrays.items():
            info = tarfile.TarInfo(key)
            info.size = array.nbytes
            archive.addfile(info, io.BytesIO(memoryview(array)))
    sync(path)


def write_pickle(path: Path, arrays: dict[str, Any]) -> None:
    with path.open("wb") as file:
        for array in arrays.values():
            pickle.dump(array, file, protocol=5)
    sync(path)


def write_safetensors(path: Path, arrays: dict[str, Any]) -> None:
    from safetensors.numpy import save_file

    save_file(arrays, path)
    sync(path)


PEERS: dict[str, Callable[[Path, dict[str, Any]], None]] = {
    "np.savez": write_npz,
    "zipfile stored": write_zip,
    "tar": write_tar,
    "pickle 5": write_pickle,
}
if importlib.util.find_spec("safetensors"):
    PEERS["safetensors"] = write_safetensors


def bench_create(root: Path, arrays: dict[str, Any], total: int, repeats: int) -> None:
    """Create a snapshot of arrays in RAM, and write the same bytes in other ways."""
    print(f"create, {total / 1e9:.1f} GB in {len(arrays)} arrays, durable")
    with MemoryManager(0, 2 * total / 1e9, 50, migration=False) as manager:
        for key, array in arrays.items():
            manager.store(key, array, tier="warm", copy=False)
        ways = {"raw write": lambda path: write_raw(path, arrays)}
        ways["raw write, early write-back"] = lambda path: write_early(path, arrays)
        ways["create_snapshot"] = manager.create_snapshot
        ways |= {
            name: lambda path, write=write: write(path, arrays) for name, write in PEERS.items()
        }
        compare(root, ways, total, repeats, "raw write")
        manager.create_snapshot(root / "snapshot")


def compare(
    root: Path, ways: dict[str, Callable[[Path], Any]], total: int, repeats: int, to: str
) -> None:
    """Run each way `repeats` times, in turn, and print the ratio of the medians."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            result: dict[str, float] = {}
            with measured(name, total, result):
                way(root / "file")
            rates[name].append(result[name])
            (root / "file").unlink(missing_ok=True)
    ratios({name: statistics.median(rate) for name, rate in rates.items()}, to)


def forget(path: Path) -> None:
    """Take a file out of the page cache."""
    sync(path)
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_raw(path: Path) -> None:
    """Read a file from front to back."""
    buffer = bytearray(4 << 20)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def bench_restore(root: Path, total: int, repeats: int) -> None:
    """Restore that snapshot, verified and lazily, and read the same file as it is."""
    path = root / "snapshot"
    for cached in (True, False):
        print(f"restore, file {'in the page cache' if cached else 'on disk'}")
        rates: dict[str, list[float]] = {}
        for _ in range(repeats):
            for name, options in {
                "raw read": None,
                "restore": {},
                "restore wait=True": {"wait": True},
                "restore verify=lazy": {"verify": "lazy"},
            }.items():
                read_raw(path) if cached else forget(path)
                result: dict[str, float] = {}
                if options is None:
                    with measured(name, total, result):
                        read_raw(path)
                else:
                    restore_once(root, path, name, options, total, result)
                rates.setdefault(name, []).append(result[name])
        ratios({name: statistics.median(rate) for name, rate in rates.items()}, "raw read")


def restore_once(
    root: Path, path: Path, name: str, options: Any, total: int, result: dict[str, float]
) -> None:
    """Restore into a fresh store, and read one value of 8 MB."""
    with MemoryManager(0, 3, 50, storage_path=root / "store", migration=False) as manager:
        with measured(name, total, result):
            manager.restore_snapshot(path, **options)
        started = time.perf_counter()
        value = manager["tile/00001"]
        milliseconds = (time.perf_counter() - started) * 1e3
        size, bar = value.nbytes / 1e6, "bar: 50 ms"
        print(f"    first value of {size:.0f} MB after {milliseconds:.1f} ms more  ({bar})")
    shutil.rmtree(root / "store")


def bench_keys(root: Path, keys: int) -> None:
    """Create and restore very many small values."""
    print(f"{keys:,} small keys (bars: 20 us a key, +500 MB for a million)")
    with MemoryManager(0, 8, 50, storage_path=root / "store", migration=False) as manager:
        for n in range(keys):
            manager.store(f"key/{n:08}", f"value {n}", tier="cold")
        with measured_keys("create_snapshot", keys):
            manager.create_snapshot(root / "keys")
    size = (root / "keys").stat().st_size
    print(f"    {size / 1e6:.0f} MB, {size / keys:.0f} bytes a key")
    shutil.rmtree(root / "store")
    with MemoryManager(0, 8, 50, storage_path=root / "other", migration=False) as manager:
        with measured_keys("restore", keys):
            manager.restore_snapshot(root / "keys")
        assert f"value {keys - 1}" == manager[f"key/{keys - 1:08}"]
    shutil.rmtree(root / "other")


def bench_writers(root: Path, gigabytes: float) -> None:
    """Store values while a snapshot is taken, and while none is."""
    for size, label in ((1 * MEGABYTE, "1 MB"), (1_000, "1 KB")):
        value = np.random.default_rng(1).bytes(size)
        with MemoryManager(0, 2 * gigabytes, 50, migration=False) as manager:
            for key, array in mixed_arrays(int(gigabytes * 1e9)).items():
                manager.store(key, array, tier="warm", copy=False)
            alone = stores_a_second(manager, value, lambda: time.sleep(2))
            beside = stores_a_second(manager, value, lambda: manager.create_snapshot(root / "file"))
        bar = 0.7 if size >= MEGABYTE else 0.4
        print(f"writers of {label} keep {beside / alone:.2f}x of their throughput  (bar: {bar})")


def stores_a_second(manager: MemoryManager, value: bytes, meanwhile: Callable[[], Any]) -> float:
    """Return how many values one thread stores each second while `meanwhile` runs."""
    stop, count = threading.Event(), 0

    def work() -> None:
        nonlocal count
        while not stop.is_set():
            manager.store(f"w{count % 100}", value, tier="warm")
            count += 1

    thread = threading.Thread(target=work)
    started = time.perf_counter()
    thread.start()
    meanwhile()
    seconds = time.perf_counter() - started
    stop.set()
    thread.join()
    return count / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1)
    parser.add_argument("--keys", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", default="create,restore,keys,writers")
    parser.add_argument("--directory", default=None, help="where to write; needs thrice the size")
    options = parser.parse_args()
    chosen = set(options.only.split(","))
    total = int(options.gigabytes * 1e9)
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        root = Path(name)
        if chosen & {"create", "restore"}:
            arrays = mixed_arrays(total)
            total = sum(array.nbytes for array in arrays.values())
            bench_create(root, arrays, total, options.repeats)
        if "restore" in chosen:
            bench_restore(root, total, options.repeats)
        (root / "snapshot").unlink(missing_ok=True)
        if "keys" in chosen:
            bench_keys(root, options.keys)
        if "writers" in chosen:
            bench_writers(root, options.gigabytes / 2)


if __name__ == "__main__":
    main()
