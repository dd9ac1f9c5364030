"""What this process holds of the operating system: descriptors, mappings, threads and locks."""

from __future__ import annotations

import gc
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = (".so", ".pyc", ".py", ".ttf", ".otf")  # What an import leaves behind, once.
PASSING = ("memories-helper",)  # They belong to no manager, and end when they are not needed.


def holdings() -> Counter[str]:
    """Return everything held now, in words, with how often it is held."""
    held: Counter[str] = Counter()
    for link in Path("/proc/self/fd").iterdir():
        try:
            held[f"descriptor of {link.readlink()}"] += 1
        except FileNotFoundError:
            continue  # The one that reads this directory.
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(None, 5)
        name = fields[5].removesuffix(" (deleted)") if len(fields) > 5 else ""
        if name.startswith("/") and ".so." not in name and not name.endswith(PACKAGES):
            held[f"mapping of {name}"] += 1
    for thread in threading.enumerate():
        if thread.name not in PASSING:
            held[f"thread {thread.name}"] += 1
    # Not from /proc/locks: a line of it is missing or there twice while other processes lock files.
    for path in Path("/proc/self/fdinfo").iterdir():
        try:
            lines = path.read_text().splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            if line.startswith("lock:"):
                held[f"lock {line.partition(': ')[2]}"] += 1
    return held


@contextmanager
def nothing_left(seconds: float = 0.0) -> Iterator[None]:
    """Fail if the block leaves more behind than there was, with the garbage collector off.

    Threads of other libraries, which we cannot join, have `seconds` to finish closing.
    """
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        before = holdings()
        yield
        give_up = time.monotonic() + seconds
        while (left := holdings() - before) and time.monotonic() < give_up:
            time.sleep(0.01)
        assert not left, f"left behind: {dict(left)}"
    finally:
        if enabled:
            gc.enable()
