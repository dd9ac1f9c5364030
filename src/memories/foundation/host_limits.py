"""Measures the bytes that the host's memory and a directory's disk can still give.

What share of it a tier may take is decided by its budget.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

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


def stalled_percent(folder: Path) -> float:
    """Return the share of the latest ten seconds in which some task of a cgroup awaited memory.

    Pressure stall information (PSI, Linux 4.20) of cgroup v2; 0 where there is none.
    """
    try:
        some = (folder / "memory.pressure").read_text().partition("\n")[0]
        name, average, *_ = some.split()
        return float(average.removeprefix("avg10=")) if name == "some" else 0.0
    except (OSError, ValueError):
        # Switched off, not mounted or not readable: then only the counts speak.
        return 0.0


def disk_room(path: Path) -> int:
    """Return bytes that this user could still write below `path`."""
    state = os.statvfs(path)
    return state.f_bavail * state.f_frsize


def _machine_room() -> int:
    for line in _MEMINFO.read_text().splitlines() if _MEMINFO.exists() else ():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return MAX_BYTES


def _cgroup_room() -> int:
    """Return the tightest room of this process's cgroups (v2, or v1's memory controller)."""
    room = MAX_BYTES
    for line in _CGROUP.read_text().splitlines() if _CGROUP.exists() else ():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            # Beyond `high` the kernel throttles, beyond `max` it kills.
            limits: tuple[str, ...] = ("memory.high", "memory.max")
            root = _CGROUP_ROOT
            names = ("memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = _CGROUP_ROOT / "memory"
            limits = ("memory.limit_in_bytes",)
            names = ("memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = root / path.lstrip("/")
        while folder.is_relative_to(root):
            room = min(room, *(_folder_room(folder, limit, *names) for limit in limits))
            folder = folder.parent
    return room


def _unified_folders() -> Iterator[Path]:
    """Yield this process's groups of cgroup v2, the root left out: it stands for the machine."""
    for line in _CGROUP.read_text().splitlines() if _CGROUP.exists() else ():
        _, controllers, path = line.split(":", 2)
        folder = _CGROUP_ROOT / path.lstrip("/")
        while not controllers and folder != _CGROUP_ROOT and folder.is_relative_to(_CGROUP_ROOT):
            yield folder
            folder = folder.parent


def _folder_room(folder: Path, limit: str, usage: str, reclaimable: str) -> int:
    try:
        allowed = (folder / limit).read_text().strip()
        if allowed == "max":
            return MAX_BYTES
        held = int((folder / usage).read_text())
        for line in (folder / "memory.stat").read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == reclaimable:
                held -= int(count)
        return max(0, int(allowed) - held)
    except (OSError, ValueError):
        # A controller that is not mounted or not readable sets no limit that we could respect.
        return MAX_BYTES
