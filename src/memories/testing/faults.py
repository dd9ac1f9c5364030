"""Failing operating systems: doubles for `DiskBackend(files=...)`.

`FailingFiles` fails its N-th call; `PoweredFiles` simulates a power cut, which loses data that were
not synced. Both are ordinary `Files`, so that tests run the code that ships.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from memories.backends.disk.files import Files

DATA_CALLS = ("create", "reopen", "write", "writev", "sync")
NAME_CALLS = ("rename", "link", "unlink", "mkdir", "sync_directory")
CHANGING = frozenset((*DATA_CALLS, *NAME_CALLS))


class FailingFiles(Files):
    """Fails the `at`-th call (counted from 1) of the kinds in `kinds`, and `count - 1` after it.

    With `torn`, a write that fails has written a part of its data.
    """

    def __init__(
        self,
        at: int = 0,
        *,
        count: int = 1,
        code: int = errno.EIO,
        kinds: frozenset[str] = CHANGING,
        torn: bool = False,
    ) -> None:
        self.at, self.count, self.code, self.kinds, self.torn = at, count, code, kinds, torn
        self.calls = 0
        self.failed: list[str] = []

    def sync(self, descriptor: int) -> None:
        """Do nothing: this class cuts no power, and real syncs would make tests slow."""

    def sync_directory(self, path: Path) -> None:
        """Do nothing."""

    def arm(self, at: int, *, count: int = 1) -> None:
        """Fail the `at`-th call from now."""
        self.calls, self.at, self.count = 0, at, count

    def __getattribute__(self, name: str) -> Any:
        method = super().__getattribute__(name)
        if name.startswith("_") or name not in super().__getattribute__("kinds"):
            return method
        return super().__getattribute__("_counted")(name, method)

    def _counted(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.calls += 1
            if not self.at <= self.calls < self.at + self.count or not self.at:
                return method(*arguments)
            self.failed.append(name)
            if self.torn and name in ("write", "writev"):
                data = arguments[1] if name == "write" else b"".join(arguments[1])
                os.write(arguments[0], memoryview(data)[: len(data) // 2])
            raise OSError(self.code, os.strerror(self.code))

        return call


class PoweredFiles(Files):
    """Tracks what was synced; `cut` writes what a disk would hold after a power cut.

    A file keeps its bytes as of its last sync, and of later bytes none, all or a random part
    (`chance`), as on real disks. A name survives if its directory was synced after the name
    appeared; otherwise it may or may not survive.
    """

    def __init__(self, root: Path, kept_files: Path) -> None:
        self._root, self._kept_files = root, kept_files
        kept_files.mkdir()
        self._synced: dict[int, int] = {}  # Inode to the length that survives.
        self._entries: dict[Path, dict[str, int]] = {}  # Directory to the names that survive.
        self._bodies: dict[int, Path] = {}  # Inode to a name that keeps its bytes.

    def create(self, path: Path) -> int:
        """Create a file, and keep its bytes even when its name is removed."""
        descriptor = super().create(path)
        inode = os.fstat(descriptor).st_ino
        # An inode number is reused only when no name is left, and this link keeps one.
        body = self._kept_files / str(inode)
        os.link(path, body)
        self._bodies[inode] = body
        return descriptor

    def sync(self, descriptor: int) -> None:
        """Sync a file, and record its length."""
        status = os.fstat(descriptor)
        self._synced[status.st_ino] = status.st_size

    def sync_directory(self, path: Path) -> None:
        """Record the names in a directory."""
        with os.scandir(path) as entries:
            self._entries[path] = {
                entry.name: entry.inode() for entry in entries if entry.is_file()
            }

    def cut(self, target: Path, chance: random.Random) -> None:
        """Write into `target` what the disk may hold after a power cut now."""
        for directory in [self._root, *(one for one in self._root.iterdir() if one.is_dir())]:
            there = target / directory.relative_to(self._root)
            there.mkdir(parents=True)
            names = dict(self._entries.get(directory, {}))
            with os.scandir(directory) as entries:
                now = {entry.name: entry.inode() for entry in entries if entry.is_file()}
            for name in sorted(set(now) | set(names)):
                # A change of a name that was not synced may have reached the disk or not.
                if now.get(name) != names.get(name) and chance.random() < 0.5:
                    names.pop(name, None)
                    if name in now:
                        names[name] = now[name]
            for name, inode in names.items():
                self._body(inode, there / name, chance)

    def _body(self, inode: int, target: Path, chance: random.Random) -> None:
        body = self._bodies.get(inode)
        if body is None:
            return  # Not created by this class: LOCK.
        shutil.copyfile(body, target)
        size, kept = target.stat().st_size, self._synced.get(inode, 0)
        fate = chance.choice(["nothing", "all", "length", "part"])
        if fate == "nothing":
            os.truncate(target, kept)
        elif fate == "part":
            os.truncate(target, chance.randint(kept, size))
        elif fate == "length":
            # The length reached the disk, but only some blocks of the bytes.
            with target.open("r+b") as file:
                for start in range(kept, size, 512):
                    if chance.random() < 0.5:
                        file.seek(start)
                        file.write(bytes(min(512, size - start)))


def flip(path: Path, offset: int, *, bit: int = 0) -> None:
    """Flip one bit of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ (1 << bit)]))


def spread(total: int, count: int) -> Sequence[int]:
    """Return up to `count` offsets spread over `total` bytes, first and last among them."""
    if total <= count:
        return range(total)
    return sorted({round(at * (total - 1) / (count - 1)) for at in range(count)})
