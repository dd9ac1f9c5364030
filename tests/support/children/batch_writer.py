"""The process that `test_disk_kill.py` has killed in the middle of a batch.

Run as `python -m tests.support.children.batch_writer PATH BYTES`: it stores a value, then a batch,
of which only so many bytes reach the file before it is killed. -1: all do, and the kill comes
before the acknowledgement.
"""

from __future__ import annotations

import os
import signal
import sys

from tests.support.children.disk_writer import content, record_for

from memories.backends.disk import DiskBackend
from memories.backends.disk.files import Files

COUNT = 50
SIZE = 1000


class DyingFiles(Files):
    """Is killed in the first write of more than a few values."""

    def __init__(self, most: int) -> None:
        self.most = most

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        if len(data) < COUNT * SIZE:
            return super().write(descriptor, data)
        super().write(descriptor, data if self.most < 0 else data[: self.most])
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("it is killed")


def main(path: str, most: int) -> None:
    backend = DiskBackend(path, files=DyingFiles(most))
    backend.write(record_for("first", 1), [memoryview(content(1, SIZE))])
    backend.write_many(
        [
            (record_for(f"k{number}", 2 + number), [memoryview(content(2 + number, SIZE))])
            for number in range(COUNT)
        ]
    )
    print("acknowledged", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
