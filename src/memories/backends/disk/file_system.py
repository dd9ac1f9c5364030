"""Detects file systems on which a store does not do what its user expects.

On a network the guarantees of the store do not hold, and in RAM its disk tier saves no memory.
"""

from __future__ import annotations

import os
from pathlib import Path

from memories.foundation.system import PROC
from memories.foundation.warn_caller import warn_caller

REMOTE = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "9p", "lustre", "beegfs", "glusterfs")
)
IN_RAM = frozenset(("tmpfs", "ramfs"))
_MOUNTS = PROC / "self/mountinfo"


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
    """Return the kind of network or FUSE file system that `path` is on, or None if it is local."""
    kind = kind_of(path, mounts)
    return kind if kind in REMOTE or kind.startswith("fuse.") else None


def is_in_ram(path: Path, mounts: str | None = None) -> bool:
    """Return whether the files of `path` are in RAM, like those of /tmp on many systems."""
    return kind_of(path, mounts) in IN_RAM


def kind_of(path: Path, mounts: str | None = None) -> str:
    """Return the kind of file system that `path` is on; empty where that is unknown.

    `mounts` stands for the text of /proc/self/mountinfo, which only Linux has.
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
    return found
