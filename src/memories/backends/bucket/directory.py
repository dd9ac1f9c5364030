"""An object store in a local directory: the stand-in for a bucket, without any package.

Its conditional write is a file lock, which works between the processes of one machine only. An
object gets its name by one rename, after its bytes were synced. Nothing is written into a directory
that took the place of the right one, as happens where a share is not mounted.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import xxhash

from memories.backends.bucket.objectstore import (
    Absent,
    BeforeSend,
    Buffer,
    Conflict,
    ObjectStore,
    Stat,
    Transient,
)
from memories.errors import StorageError
from memories.foundation.fork_lock import OpenDirectory, lock_file
from memories.foundation.regular_file import open_regular
from memories.foundation.system import sync

_TEMPORARY = ".part-"
_GATHER = 512  # Buffers per system call; the kernel takes 1024.


class DirectoryStore(ObjectStore):
    """Objects as files under `root`, which its writer creates with mode 0700 when missing."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._identity: tuple[int, int] | None = (
            None  # Device and inode, once it is known to be it.
        )
        self.url = str(self._root)

    def put(self, name: str, buffers: Sequence[Buffer], sending: BeforeSend | None = None) -> None:
        """Write a temporary file, sync it, and rename it."""
        if sending is not None:
            sending(sum(memoryview(buffer).nbytes for buffer in buffers))
        self._require_same()
        self._put(name, buffers)

    def _put(self, name: str, buffers: Sequence[Buffer]) -> None:
        path = self._path(name)
        with self._translated("write"):
            if not path.parent.is_dir():
                self._make()
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                _sync_directory(self._root)
            part = path.with_name(_TEMPORARY + secrets.token_hex(8))
            try:
                _write_synced(part, buffers)
                part.rename(path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
            _sync_directory(path.parent)

    def put_if(self, name: str, data: bytes, tag: str | None) -> str:
        """Compare and write under a lock on the directory."""
        if tag is None:
            self._make()
        with self._translated("lock"), self._locked():
            try:
                state: str | None = self.get(name)[1]
            except Absent:
                state = None
            if state != tag:
                raise Conflict(name)
            self._put(name, [data])
            status = self._root.stat()
            self._identity = (status.st_dev, status.st_ino)
        return _tag(data)

    def get(self, name: str) -> tuple[bytes, str]:
        """Read the file; its tag is a digest of its bytes."""
        with self._translated("read"):
            fd = open_regular(self._path(name), os.O_RDONLY)
            with os.fdopen(fd, "rb") as file:
                data = file.read()
        return data, _tag(data)

    def get_range(self, name: str, offset: int, length: int) -> Buffer:
        """Read a part of the file."""
        with self._translated("read"):
            fd = open_regular(self._path(name), os.O_RDONLY)
            try:
                return _pread(fd, offset, length)
            finally:
                os.close(fd)

    def delete(self, name: str) -> None:
        """Unlink the file."""
        self._require_same()
        with self._translated("delete"):
            self._path(name).unlink(missing_ok=True)

    def list(self, prefix: str) -> Iterator[Stat]:
        """Walk the directory; an object that goes meanwhile is left out."""
        self._require_same()
        with self._translated("list"):
            paths = sorted(self._path(prefix).glob("**/*"))
        for path in paths:
            if path.name.startswith(_TEMPORARY):
                continue
            with contextlib.suppress(Absent), self._translated("list"):
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    name = path.relative_to(self._root).as_posix()
                    yield Stat(name, status.st_size, status.st_mtime)

    def _make(self) -> None:
        with self._translated("create"):
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _require_same(self) -> None:
        """Raise Transient if another directory lies where the writer's own lay, or none."""
        if self._identity is None:
            return
        try:
            status = self._root.stat()
        except OSError as error:
            raise Transient("its directory is not there; is it mounted?") from error
        if (status.st_dev, status.st_ino) != self._identity:
            raise Transient("another directory is in its place; is it mounted?")

    def _path(self, name: str) -> Path:
        return self._root / name

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        held = OpenDirectory(self._root)
        try:
            lock_file(held.descriptor, self._root)
            yield
        finally:
            held.close()

    @contextlib.contextmanager
    def _translated(self, action: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise Absent(str(error.filename)) from error
        except StorageError:
            raise
        except OSError as error:
            raise StorageError(
                f"the archive directory {self.url} refused to {action} an object: "
                f"{error.strerror or error}; check its space and permissions"
            ) from error


def _write_synced(path: Path, buffers: Sequence[Buffer]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        pending = [memoryview(buffer).cast("B") for buffer in buffers if len(buffer)]
        while pending:
            written = os.writev(fd, pending[:_GATHER])
            while pending and written >= len(pending[0]):
                written -= len(pending.pop(0))
            if written:
                pending[0] = pending[0][written:]
        sync(fd)
    finally:
        os.close(fd)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(fd)
    finally:
        os.close(fd)


def _pread(fd: int, offset: int, length: int) -> bytearray:
    # The file's own size bounds the allocation, whatever a damaged record asks for.
    length = max(0, min(length, os.fstat(fd).st_size - offset))
    buffer = bytearray(length)
    view, done = memoryview(buffer), 0
    while done < length:
        count = os.preadv(fd, [view[done:]], offset + done)
        if count == 0:
            return buffer[:done]
        done += count
    return buffer


def _tag(data: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(data)
