"""The process whose system calls `test_disk_strace.py` fails: one script, over and over.

Each line on its input is a directory; the script runs there, and what came of each step is printed
at its end. Before that nothing is printed, so that every call made is one of the store's.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from memories.backends.disk import DiskBackend, compaction, size_limits
from memories.errors import MemoriesError
from memories.testing.backends import frame_for, record_for

LARGE = 40_000


def body(version: int) -> bytes:
    return bytes([version]) * (LARGE + version if version % 5 == 0 else 3000)


def script(path: str) -> dict[str, Any]:
    """Return each step's key, version and error, and what was there at the end."""
    steps: list[tuple[str, int, str]] = []

    def step(key: str, version: int, action: Callable[[], object]) -> None:
        error = ""
        try:
            action()
        except MemoriesError as caught:
            error = f"{type(caught).__name__}: {caught}"
        steps.append((key, version, error))

    try:
        backend = DiskBackend(path, durability="full")
    except MemoriesError as error:
        return {"open": str(error), "steps": [], "found": {}, "close": ""}
    writer, upkeep = backend._writer, backend._maintenance
    assert writer is not None
    assert upkeep is not None
    upkeep.stop()
    for version in range(1, 25):
        key = f"k{version % 4}"
        if version % 7 == 0:
            step(key, -version, lambda key=key, version=version: backend.remove(key, version))
        else:
            record, frame = record_for(key, version), frame_for(body(version))
            step(key, version, lambda record=record, frame=frame: backend.write(record, frame))
        if version % 8 == 0:
            try:
                compaction.run_upkeep(writer, lambda: None, quiet=True)
            except OSError:
                continue  # The background would try again.
    found = {}
    for number in range(4):
        for _ in range(2):  # A read may meet the fault, too; the next one must not.
            try:
                record = backend.lookup(f"k{number}")
                if record is not None:
                    whole = body(record.version) == bytes(backend.read(record))
                    found[record.key] = record.version if whole else -1
                break
            except MemoriesError:
                continue
    closed = ""
    try:
        backend.close()
    except MemoriesError as error:
        closed = str(error)
    return {"open": "", "steps": steps, "found": found, "close": closed}


def main() -> None:
    size_limits.SEGMENT_BYTES, size_limits.LARGE_BYTES, size_limits.SLACK_BYTES = (
        20_000,
        LARGE,
        20_000,
    )
    compaction.RECENT_ROWS = 5
    for line in sys.stdin:
        answer = json.dumps(script(line.strip())).encode() + b"\n"
        while answer:
            try:
                answer = answer[os.write(1, answer) :]
            except BrokenPipeError:
                return  # The parent has stopped listening.
            except OSError:
                continue  # The fault was meant for the store, and comes only once.


if __name__ == "__main__":
    main()
