"""The ways of keeping one large incompressible array that cold is compared with.

Not compressed anywhere, for noise does not shrink. The one idea: none of these syncs, which is what
`"relaxed"` is compared with; `"full"` is compared with a write and an fsync.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _cold_peers import present


class Way(NamedTuple):
    """How to write the array, and how to read it and add it up."""

    write: Callable[[], object]
    read: Callable[[], object]


def ways(root: Path, array: np.ndarray[Any, Any], *, databases: bool) -> dict[str, Way]:
    """Return every way that is installed; name what is missing."""
    found = present("joblib", "safetensors", "zarr", "zict", *(["rocksdict"] if databases else []))
    made = {}
    if "joblib" in found:
        made["joblib"] = _joblib(root / "array.joblib", array)
    if "safetensors" in found:
        made["safetensors"] = _safetensors(root / "array.safetensors", array)
    if "zarr" in found:
        made["zarr, uncompressed"] = _zarr(root / "zarr", array)
    if "zict" in found:
        made["zict.File"] = _zict(root / "zict", array)
    if databases:
        made["sqlite, synchronous=OFF"] = _sqlite(root / "sqlite", array)
    if "rocksdict" in found:
        made["rocksdict, no sync"] = _rocksdict(root / "rocks", array)
    return made


def _joblib(path: Path, array: np.ndarray[Any, Any]) -> Way:
    import joblib

    def write() -> None:
        path.unlink(missing_ok=True)
        joblib.dump(array, path)

    return Way(write, lambda: joblib.load(path, mmap_mode="r").sum())


def _safetensors(path: Path, array: np.ndarray[Any, Any]) -> Way:
    from safetensors import safe_open
    from safetensors.numpy import save_file

    def write() -> None:
        path.unlink(missing_ok=True)
        save_file({"array": array}, path)

    def read() -> object:
        with safe_open(path, framework="np") as file:
            return file.get_tensor("array").sum()

    return Way(write, read)


def _zarr(path: Path, array: np.ndarray[Any, Any]) -> Way:
    import zarr

    def write() -> None:
        chunks = (min(len(array), 1 << 20),)
        zarr.create_array(
            store=str(path), data=array, chunks=chunks, compressors=None, overwrite=True
        )

    return Way(write, lambda: np.asarray(zarr.open_array(str(path), mode="r")[:]).sum())


def _zict(path: Path, array: np.ndarray[Any, Any]) -> Way:
    from zict import File

    files, view = File(path, memmap=True), memoryview(array).cast("B")

    def write() -> None:
        files["array"] = view

    return Way(write, lambda: np.frombuffer(files["array"]).sum())


def _sqlite(path: Path, array: np.ndarray[Any, Any]) -> Way:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=OFF")
    database.execute("CREATE TABLE v (k TEXT PRIMARY KEY, v BLOB)")
    view = memoryview(array).cast("B")

    def write() -> None:
        database.execute("INSERT OR REPLACE INTO v VALUES ('array', ?)", (view,))

    def read() -> object:
        return np.frombuffer(database.execute("SELECT v FROM v").fetchone()[0]).sum()

    return Way(write, read)


def _rocksdict(path: Path, array: np.ndarray[Any, Any]) -> Way:
    from rocksdict import Options, Rdict

    database, data = Rdict(str(path), options=Options(raw_mode=True)), array.tobytes()

    def write() -> None:
        database[b"array"] = data

    def read() -> object:
        return np.frombuffer(database[b"array"]).sum()

    return Way(write, read)
