"""What the machine has: RAM, as far as this process may use it, and the disk of a directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from memories.foundation.system import CGROUPS, PROC

_CGROUPS = PROC / "self/cgroup"
_CGROUP_ROOT = CGROUPS


def ram_bytes() -> int:
    """Return the bytes of RAM of the machine, or fewer where a control group allows fewer."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([whole, *_limits()])


def disk_bytes(path: Path | None) -> int | None:
    """Return the size of the file system that a directory is on, or will be; None if unknown."""
    for folder in () if path is None else (path, *path.parents):
        try:
            state = os.statvfs(folder)
        except OSError:
            continue  # It does not exist yet, or cannot be read.
        return state.f_blocks * state.f_frsize
    return None


def _limits() -> Iterator[int]:
    """Yield the limits of the control groups of this process, version 2 and version 1."""
    for line in _CGROUPS.read_text().splitlines() if _CGROUPS.exists() else ():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, name = _CGROUP_ROOT, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = _CGROUP_ROOT / "memory", "memory.limit_in_bytes"
        else:
            continue
        folder = root / path.lstrip("/")
        while folder.is_relative_to(root):
            try:
                allowed = (folder / name).read_text().strip()
            except OSError:
                allowed = "max"  # Not mounted, or not readable: it sets no limit.
            if allowed.isdigit():
                yield int(allowed)
            folder = folder.parent
