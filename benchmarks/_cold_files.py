"""The ways of keeping one large incompressible array that cold is compared with.

Not compressed anywhere, for noise does not shrink. None of these syncs: that is what
`"relaxed"` is compared with; `"full"` is compared with a write and an fsync.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _cold_peers import present

DATABASE_BYTES = 500 * 10**6  # SQLite takes no value of a gigabyte.


class Way(NamedTuple):
    """How to write the array, how to read it and add it up, and what it lies in."""

    write: Callable[[], object]
    read: Callable[[], object]
    path: Path | None = None
    remove: Callable[[], object] | None = None

    def clear(self) -> None:
        """Make what was written go, if it was."""
        if self.remove is not None:
            self.remove()
        elif self.path is not None and self.path.is_dir():
            shutil.rmtree(self.path)
        elif self.path is not None:
            self.path.unlink(missing_ok=True)


def ways(root: Path, array: np.ndarray[Any, Any]) -> dict[str, Way]:
    """Return every way that is installed; name what is missing."""
    databases = array.nbytes <= DATABASE_BYTES
    found = present("joblib", "safetensors", "zarr", "zict", *(["rocksdict"] if databases else []))
    if not databases:
        print(f"\nleft out at {array.nbytes / 1e6:.0f} MB: SQLite and rocksdict")
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

    return Way(
        lambda: joblib.dump(array, path), lambda: joblib.load(path, mmap_mode="r").sum(), path
    )


def _safetensors(path: Path, array: np.ndarray[Any, Any]) -> Way:
    from safetensors import safe_open
    from safetensors.numpy import save_file

    def read() -> object:
        with safe_open(path, framework="np") as file:
            return file.get_tensor("array").sum()

    return Way(lambda: save_file({"array": array}, path), read, path)


def _zarr(path: Path, array: np.ndarray[Any, Any]) -> Way:
    import zarr

    def write() -> None:
        chunks = (min(len(array), 1 << 20),)
        zarr.create_array(
            store=str(path), data=array, chunks=chunks, compressors=None, overwrite=True
        )

    def read() -> object:
        return np.asarray(zarr.open_array(str(path), mode="r")[:]).sum()

    return Way(write, read, path)


def _zict(path: Path, array: np.ndarray[Any, Any]) -> Way:
    from zict import File

    files, view = File(path, memmap=True), memoryview(array).cast("B")

    def write() -> None:
        files["array"] = view

    def read() -> object:
        return np.frombuffer(files["array"]).sum()

    return Way(write, read, remove=lambda: files.pop("array", None))


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

    return Way(write, read, remove=lambda: database.execute("DELETE FROM v"))


def _rocksdict(path: Path, array: np.ndarray[Any, Any]) -> Way:
    from rocksdict import Options, Rdict

    database, data = Rdict(str(path), options=Options(raw_mode=True)), array.tobytes()

    def write() -> None:
        database[b"array"] = data

    def read() -> object:
        return np.frombuffer(database[b"array"]).sum()

    def remove() -> None:
        if b"array" in database:
            del database[b"array"]

    return Way(write, read, remove=remove)
