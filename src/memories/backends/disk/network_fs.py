"""Detects network file systems, on which the guarantees of the store do not hold."""

from __future__ import annotations

import os
from pathlib import Path

from memories.foundation.warn_caller import warn_caller

REMOTE = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "9p", "lustre", "beegfs", "glusterfs")
)
_MOUNTS = Path("/proc/self/mountinfo")


def warn_if_remote(path: Path) -> bool:
    """Warn that the store at `path` is on a network file system, and return whether it is."""
    kind = remote_kind(path)
    if kind is not None:
        warn_caller(
            f"{path} is on a network file system ({kind}): use the store from one machine at a "
            "time, and do not rely on it after a power cut (docs/format.md, Cold log)"
        )
    return kind is not None


def remote_kind(path: Path, mounts: str | None = None) -> str | None:
    """Return the kind of network or FUSE file system that `path` is on, or None if it is local.

    `mounts` stands for the text of /proc/self/mountinfo; without one every path counts as local.
    """
    if mounts is None:
        mounts = _MOUNTS.read_text() if _MOUNTS.exists() else ""
    place = os.path.realpath(path)
    longest, found = -1, ""
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4].encode().decode("unicode_escape")
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:
            longest, found = len(point), right.split()[0]
    return found if found in REMOTE or found.startswith("fuse.") else None
