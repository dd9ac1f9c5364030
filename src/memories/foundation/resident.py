"""The bytes of RAM that this process holds."""

from __future__ import annotations

import os

from memories.foundation.system import PROC

_STATM = PROC / "self/statm"


def resident_bytes() -> int | None:
    """Return the resident set size (RSS) of this process; None where there is no /proc."""
    try:
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None
