"""The peak RAM of this process and its children, as counted by the kernel."""

from __future__ import annotations

import os
import resource
import sys

from memories.foundation.system import PROC


def peak_rss_bytes() -> int:
    """Return the peak of this process plus those of its children, running or ended."""
    own = _peak_of(os.getpid())
    if own is None:
        own = _in_bytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    gone = _in_bytes(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    return own + gone + sum(_peak_of(child) or 0 for child in _descendants(os.getpid()))


def _in_bytes(maxrss: int) -> int:
    return maxrss if sys.platform == "darwin" else maxrss * 1024


def _peak_of(process: int) -> int | None:
    try:
        status = (PROC / str(process) / "status").read_text()
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def _descendants(process: int) -> list[int]:
    found = []
    for path in PROC.glob(f"{process}/task/*/children"):
        try:
            children = [int(child) for child in path.read_text().split()]
        except OSError:
            continue  # The thread has ended since it was listed.
        for child in children:
            found += [child, *_descendants(child)]
    return found
