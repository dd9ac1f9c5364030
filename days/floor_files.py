"""The least program that keeps the promises for large values: a file for each version.

As in `days.floor`, from where the log comes that names the files. A file is mapped, and verified at
its first use. A replaced one is removed once its successor is synced. A snapshot is one file, which
is complete or absent; what opens it elsewhere links it, and verifies every byte.
"""

from __future__ import annotations

import json
import mmap
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import xxhash

from days.floor import SYNC_SECONDS, Floor


class FloorFiles:
    """Large values by key, each version in a file of its own."""

    def __init__(self, folder: Path) -> None:
        self._names = Floor(folder / "names")
        self._folder = folder
        self._current: dict[str, tuple[int, int]] = {}  # By key: the file and its checksum.
        self._count = 0
        self._verified: set[int] = set()
        self._unsynced: list[tuple[int, int | None]] = []  # A descriptor, and what it replaces.
        self._ended = threading.Event()
        self._syncing = threading.Thread(target=self._sync, daemon=True)
        self._syncing.start()

    def put(self, key: str, value: Any) -> None:
        """Write a value into a new file, and then its name into the log."""
        body = memoryview(value).cast("B")
        self._count += 1
        file = os.open(self._folder / str(self._count), os.O_WRONLY | os.O_CREAT, 0o600)
        done = 0
        while done < len(body):
            done += os.write(file, body[done:])
        checksum = xxhash.xxh3_64_intdigest(body)
        replaced, _ = self._current.get(key, (None, 0))
        self._current[key] = self._count, checksum
        self._names.put({key: json.dumps(self._current[key]).encode()})
        self._unsynced.append((file, replaced))

    def get(self, key: str) -> memoryview:
        """Return a value, mapped."""
        number, checksum = self._current[key]
        with (self._folder / str(number)).open("rb") as file:
            body = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        if number not in self._verified:
            _verify(body, checksum)
            self._verified.add(number)
        return body

    def snapshot(self, path: Path) -> None:
        """Copy every value into one file, which gets its name once it is synced."""
        rows = []
        with path.with_suffix(".new").open("wb") as file:
            for key, (number, checksum) in self._current.items():
                rows.append((key, file.tell(), checksum))
                with (self._folder / str(number)).open("rb") as source:
                    size = os.fstat(source.fileno()).st_size
                    done = 0
                    while done < size:
                        done += os.sendfile(file.fileno(), source.fileno(), done, size - done)
                file.seek(0, os.SEEK_END)
            manifest = json.dumps(rows).encode()
            file.write(manifest + len(manifest).to_bytes(8, "little"))
            file.flush()
            os.fsync(file.fileno())
        path.with_suffix(".new").replace(path)

    def close(self) -> None:
        """Sync what was written."""
        self._ended.set()
        self._syncing.join()
        self._names.close()

    def _sync(self) -> None:
        ended = False
        while not ended:
            ended = self._ended.wait(SYNC_SECONDS)
            written, self._unsynced = self._unsynced, []
            for file, _ in written:
                os.fdatasync(file)
                os.close(file)
            self._names.sync()
            for _, replaced in written:
                if replaced is not None:
                    (self._folder / str(replaced)).unlink()


def open_snapshot(path: Path, folder: Path) -> dict[str, memoryview]:
    """Link a snapshot into a folder, verify it, and return its values, mapped."""
    folder.mkdir()
    os.link(path, folder / "values")
    with (folder / "values").open("rb") as file:
        whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    end = len(whole) - 8 - int.from_bytes(whole[-8:], "little")
    rows = json.loads(bytes(whole[end:-8]))
    ends = [*(start for _, start, _ in rows[1:]), end]
    values = {key: whole[start:stop] for (key, start, _), stop in zip(rows, ends, strict=True)}
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(_verify, values.values(), (checksum for _, _, checksum in rows)))
    return values


def _verify(body: memoryview, checksum: int) -> None:
    if xxhash.xxh3_64_intdigest(body) != checksum:
        raise ValueError("a value is damaged")
