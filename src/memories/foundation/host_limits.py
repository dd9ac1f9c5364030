"""Measures the bytes that the host's memory and a directory's disk can still give.

What share of it a tier may take is decided by its budget. Where no migrator measures in time, a
store does so four times a second, and holds the lock of the entries meanwhile: paths are plain
texts here, and files are read without a buffer, which takes a third of the time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from memories.foundation.machine import ram_bytes
from memories.foundation.system import CGROUPS, PROC
from memories.foundation.units import MAX_BYTES

ENTRY_BYTES = 256  # Charged per entry on top of its payload: the entry, its dict slot, its links.

STALLED_PERCENT = 10.0  # Of ten seconds: far above the noise of a reclaim now and then.

_MEMINFO = PROC / "meminfo"
_CGROUP = PROC / "self/cgroup"
_CGROUP_ROOT = CGROUPS


def host_room() -> int:
    """Return bytes of RAM that this process could still take without swapping or being killed.

    Half of that while tasks of one of its control groups stall for memory: other processes want
    what is counted as free. It is not zero, since the average lags behind and tiers would be
    emptied for a stall that is over.
    """
    room = min(_machine_room(), _cgroup_room())
    if any(stalled_percent(folder) >= STALLED_PERCENT for folder in _unified_folders()):
        return room // 2
    return room


def stalled_percent(folder: str | Path) -> float:
    """Return the share of the latest ten seconds in which some task of a cgroup awaited memory.

    Pressure stall information (PSI, Linux 4.20) of cgroup v2; 0 where there is none.
    """
    try:
        some = _text(f"{folder}/memory.pressure").partition("\n")[0]
        name, average, *_ = some.split()
        return float(average.removeprefix("avg10=")) if name == "some" else 0.0
    except (OSError, ValueError):
        # Switched off, not mounted or not readable: then only the counts speak.
        return 0.0


def disk_room(path: Path) -> int:
    """Return bytes that this user could still write below `path`."""
    state = os.statvfs(path)
    return state.f_bavail * state.f_frsize


def _text(path: str | Path) -> str:
    """Return the text of a small file of the kernel."""
    with FileIO(os.fspath(path)) as file:
        return file.readall().decode()


def _lines(path: Path) -> list[str]:
    """Return the lines of a small file, none where it is missing."""
    try:
        return _text(path).splitlines()
    except FileNotFoundError:
        return []


def _machine_room() -> int:
    for line in _lines(_MEMINFO):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return ram_bytes()  # What is free is unknown here; there is no more than that.


def _cgroup_room() -> int:
    """Return the tightest room of this process's cgroups (v2, or v1's memory controller)."""
    room = MAX_BYTES
    for line in _lines(_CGROUP):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            # Beyond `high` the kernel throttles, beyond `max` it kills.
            limits: tuple[str, ...] = ("memory.high", "memory.max")
            root = os.fspath(_CGROUP_ROOT)
            names = ("memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = f"{_CGROUP_ROOT}/memory"
            limits = ("memory.limit_in_bytes",)
            names = ("memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        for folder in (*_below(root, path), root):
            room = min(room, *[_folder_room(folder, limit, *names) for limit in limits])
    return room


def _unified_folders() -> Iterator[str]:
    """Yield this process's groups of cgroup v2, the root left out: it stands for the machine."""
    for line in _lines(_CGROUP):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _below(os.fspath(_CGROUP_ROOT), path)


def _below(root: str, path: str) -> Iterator[str]:
    """Yield the folder at `path` below `root`, and those that it lies in, without `root`."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    for count in range(len(parts), 0, -1):
        yield "/".join((root, *parts[:count]))


def _folder_room(folder: str, limit: str, usage: str, reclaimable: str) -> int:
    try:
        allowed = _text(f"{folder}/{limit}").strip()
        if allowed == "max":
            return MAX_BYTES
        held = int(_text(f"{folder}/{usage}"))
        for line in _text(f"{folder}/memory.stat").splitlines():
            name, _, count = line.partition(" ")
            if name == reclaimable:
                held -= int(count)
        return max(0, int(allowed) - held)
    except (OSError, ValueError):
        # A controller that is not mounted or not readable sets no limit that we could respect.
        return MAX_BYTES
