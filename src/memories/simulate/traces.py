"""Read recorded accesses from files, and write them.

There are two file formats: `.npz` with the arrays `time`, `key` and `size`, and `.jsonl` with one
`{"time":, "key":, "size":}` per line. A program can append to the latter while it runs; the file is
readable up to its last complete line.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from memories.errors import CorruptDataError, InvalidOptionError
from memories.foundation.regular_file import open_output, open_regular


class Access(NamedTuple):
    """One access: seconds since the trace began, the key, and its size in bytes."""

    time: float
    key: str
    size: int


class Trace(NamedTuple):
    """Accesses in order, as three equally long lists. A key has one size, its largest."""

    times: list[float]
    keys: list[str]
    sizes: list[int]

    @property
    def footprint_bytes(self) -> int:
        """Bytes of all keys together."""
        return sum(dict(zip(self.keys, self.sizes, strict=True)).values())

    @property
    def distinct_keys(self) -> int:
        """How many keys there are."""
        return len(set(self.keys))


def trace_of(rows: Iterable[Access]) -> Trace:
    """Return the trace of these accesses, every key with its largest size, at least 1."""
    times: list[float] = []
    keys: list[str] = []
    sizes: list[int] = []
    largest: dict[str, int] = {}
    for time, key, size in rows:
        times.append(time)
        keys.append(key)
        sizes.append(size)
        largest[key] = max(largest.get(key, 1), size)
    return Trace(times, keys, [largest[key] for key in keys])


def read_trace(path: str | Path) -> Trace:
    """Return the trace in a `.npz` or `.jsonl` file.

    Raises:
        InvalidOptionError: the name has another ending.
        FileNotFoundError: there is no such file.
        CorruptDataError: the file is damaged, or is something else.
    """
    path = Path(path)
    if path.suffix == ".npz":
        return _read_npz(path)
    if path.suffix == ".jsonl":
        return _read_jsonl(path)
    raise InvalidOptionError(f"{path.name!r} has the wrong suffix: a trace ends in .npz or .jsonl")


def _read_npz(path: Path) -> Trace:
    with os.fdopen(open_regular(path, os.O_RDONLY, links=True), "rb") as file:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                times, keys, sizes = (arrays[name].tolist() for name in ("time", "key", "size"))
        except (KeyError, TypeError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise CorruptDataError(
                f"{path.name!r} is not a trace with the arrays time, key, size ({error})"
            ) from error
    if not len(times) == len(keys) == len(sizes):
        raise CorruptDataError(f"{path.name!r} is damaged: its arrays differ in length")
    return trace_of(map(Access, times, map(str, keys), sizes))


def _read_jsonl(path: Path) -> Trace:
    descriptor = open_regular(path, os.O_RDONLY, links=True)
    with os.fdopen(descriptor, encoding="utf-8") as lines:
        return trace_of(_rows(path, lines))


def _rows(path: Path, lines: TextIO) -> Iterable[Access]:
    for number, line in enumerate(lines, 1):
        if not line.endswith("\n"):
            return  # The last line is incomplete: the writer is still running, or was killed.
        try:
            row = json.loads(line)
            yield Access(float(row["time"]), str(row["key"]), int(row["size"]))
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptDataError(
                f"line {number} of {path.name!r} is not a valid access: it needs time, key and size"
            ) from error


def write_trace(path: str | Path, rows: Iterable[Access]) -> None:
    """Write accesses to a `.npz` or `.jsonl` file, replacing it.

    Raises:
        InvalidOptionError: the name has another ending.
    """
    path = Path(path)
    if path.suffix == ".jsonl":
        with os.fdopen(open_output(path), "w", encoding="utf-8") as lines:
            lines.writelines(jsonl_line(row) for row in rows)
    elif path.suffix == ".npz":
        times, keys, sizes = trace_of(rows)
        with os.fdopen(open_output(path), "wb") as file:
            np.savez_compressed(
                file,
                time=np.array(times, np.float64),
                key=np.array(keys, np.str_),
                size=np.array(sizes, np.uint64),
            )
    else:
        raise InvalidOptionError(
            f"{path.name!r} has the wrong suffix: a trace ends in .npz or .jsonl"
        )


def jsonl_line(row: Access) -> str:
    """Return one access as a line of a `.jsonl` trace."""
    return json.dumps(row._asdict(), separators=(",", ":")) + "\n"
