"""What there is room for: bytes that the host's memory and a directory's disk can still give.

Only measures; what share of it a tier may take is the ledger's business.
"""

from __future__ import annotations

import os
from pathlib import Path

from memories.units import MAX_BYTES

ENTRY_BYTES = 256  # Charged per entry on top of its payload: the entry, its dict slot, its links.

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/proc/self/cgroup")
_CGROUP_ROOT = Path("/sys/fs/cgroup")


def host_room() -> int:
    """Return bytes of RAM that this process could still take without swapping or being killed."""
    return min(_machine_room(), _cgroup_room())


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
            names, root = ("memory.max", "memory.current", "inactive_file"), _CGROUP_ROOT
        elif "memory" in controllers.split(","):
            root = _CGROUP_ROOT / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = root / path.lstrip("/")
        while folder.is_relative_to(root):
            room = min(room, _folder_room(folder, *names))
            folder = folder.parent
    return room


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
