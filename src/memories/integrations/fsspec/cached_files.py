"""A file system in front of another one, whose files it keeps in blocks in the tiers."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from memories.core.manager import MemoryManager
from memories.core.manager_handle import ManagerHandle, handle_of, open_handle, token_of
from memories.core.pickled_reader import is_unopened
from memories.errors import InvalidOptionError
from memories.foundation.units import parse_size
from memories.integrations.fsspec.blocks import FileBlocks, FileVersion
from memories.integrations.fsspec.files import PROTOCOL, MemoriesFileSystem
from memories.integrations.managers import open_for_urls
from memories.integrations.read_through import (
    KeepTerms,
    ReadThrough,
    Writing,
    shared_read_through,
    worker_for,
)
from memories.model.tiers import StoreTier

_GLOB = re.compile(r"[*?\[]")
BLOCKS_AHEAD = 8  # The most that a sequential reader fetches ahead in one request.


class CachedFileSystem(MemoriesFileSystem):
    """Files of another file system, of which blocks are kept in the tiers.

    `memories::s3://bucket/key` is such a file system in front of s3fs. Reads fetch whole blocks;
    callers that need the same block at the same time share one request. All other calls go to the
    file system behind this one. Its sizes are hard: what has no room is dropped. With a
    `storage_path`, what is kept survives the process, and other processes read it.

    A file is looked at again after `max_age` seconds; a change of it is seen then at the latest. An
    open file that changed raises `ConflictError`.

    Args:
        target_protocol: The protocol behind this one.
        target_options: The options of that file system.
        fs: That file system itself, instead of its protocol.
        manager: The manager; None opens one for all file systems of this process.
        storage_path: The directory of that manager; None is a private one.
        memory: The RAM of that manager.
        disk: The disk of that manager.
        prefix: What the keys begin with; None derives it from the file system behind this one.
        block_size: Bytes of a block, as a number or like `"1 MiB"`.
        max_age: Seconds; None for files that never change, 0 to look at each use.
        absent_seconds: Seconds for which it is remembered that a file is absent.
        tier: The tier that a block enters first.
        worker_memory: The RAM for what a process that only reads the manager fetches itself.
    """

    def __init__(
        self,
        target_protocol: str | None = None,
        target_options: dict[str, Any] | None = None,
        fs: AbstractFileSystem | None = None,
        *,
        manager: MemoryManager | None = None,
        storage_path: str | None = None,
        memory: str = "512 MB",
        disk: str = "10 GB",
        prefix: str | None = None,
        block_size: int | str = "1 MiB",
        max_age: float | None = 60.0,
        absent_seconds: float = 10.0,
        tier: StoreTier = "auto",
        worker_memory: str = "128 MB",
        **options: Any,
    ) -> None:
        options.pop("fo", None)  # The path behind this one, which each call gives again.
        if (fs is None) == (target_protocol is None):
            raise InvalidOptionError("give either target_protocol= or fs=, and not both")
        behind = fs if fs is not None else _open_target(target_protocol, target_options)
        if manager is None:
            manager = open_for_urls(storage_path, memory, disk)
        super().__init__(manager, tier=tier, **options)
        self._behind = behind
        self._behind_pid = os.getpid()
        self._terms = KeepTerms.checked(max_age, absent_seconds, tier)
        size = block_size if isinstance(block_size, int) else parse_size(block_size)
        if size < 1:
            raise InvalidOptionError(f"block_size={block_size!r} must be at least one byte")
        self._block_size = int(size)
        identity = _identity(behind)
        if prefix is None:
            prefix = f"files/{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
        self._options: dict[str, Any] = {
            "prefix": prefix,
            "block_size": self._block_size,
            "max_age": max_age,
            "absent_seconds": absent_seconds,
            "tier": tier,
            "worker_memory": worker_memory,
        }
        workers = int(parse_size(worker_memory, name="worker_memory"))
        self._kept = shared_read_through(token_of(manager), manager, prefix, identity, workers)
        self._blocks = FileBlocks(self._kept, lambda: self.fs, self._block_size, self._terms)

    def __reduce__(self) -> Any:
        assert self._manager is not None
        return _reopen_cached, (handle_of(self._manager), self.fs, self._options)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, CachedFileSystem)
            and other._behind == self._behind
            and other._kept is self._kept
        )

    def __hash__(self) -> int:
        return hash((type(self), self._kept.prefix))

    @property
    def fs(self) -> AbstractFileSystem:
        """The file system behind this one; a forked child makes its own."""
        if self._behind_pid != os.getpid():
            kind, arguments = type(self._behind), self._behind.storage_args
            options = {**self._behind.storage_options, "skip_instance_cache": True}
            self._behind = kind(*arguments, **options)
            self._behind_pid = os.getpid()
        return self._behind

    def _strip_protocol(self, path: Any) -> Any:  # type: ignore[override]
        """Return a path as the file system behind this one has it."""
        if isinstance(path, list):
            return [self._strip_protocol(one) for one in path]
        path = str(os.fspath(path)) if not isinstance(path, str) else path
        return self._behind._strip_protocol(path.removeprefix(f"{PROTOCOL}::"))

    def unstrip_protocol(self, name: str) -> str:
        """Return a path with its protocols."""
        return f"{PROTOCOL}::{self.fs.unstrip_protocol(name)}"

    @property
    def fsid(self) -> str:
        """What distinguishes this file system from others."""
        return f"{PROTOCOL}::{self.fs.fsid}"

    # What is only asked, of the file system behind.

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """Return what the file system behind says of a path, and remember it."""
        path = self._strip_protocol(path)
        found: dict[str, Any] = self.fs.info(path, **options)
        return found

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        """Return what is directly below a folder."""
        return self.fs.ls(self._strip_protocol(path), detail=detail, **options)

    def find(self, path: str, *arguments: Any, **options: Any) -> Any:
        """Return all files below a folder."""
        return self.fs.find(self._strip_protocol(path), *arguments, **options)

    def glob(self, path: str, *arguments: Any, **options: Any) -> Any:
        """Return all paths that match a pattern."""
        return self.fs.glob(self._strip_protocol(path), *arguments, **options)

    def exists(self, path: str, **options: Any) -> bool:
        """Return whether something is at a path."""
        return bool(self.fs.exists(self._strip_protocol(path), **options))

    def isdir(self, path: str) -> bool:
        """Return whether a path is a folder."""
        return bool(self.fs.isdir(self._strip_protocol(path)))

    def isfile(self, path: str) -> bool:
        """Return whether a path is a file."""
        return bool(self.fs.isfile(self._strip_protocol(path)))

    def created(self, path: str) -> Any:
        """Return when a file was made."""
        return self.fs.created(self._strip_protocol(path))

    def modified(self, path: str) -> Any:
        """Return when a file was changed."""
        return self.fs.modified(self._strip_protocol(path))

    def checksum(self, path: str) -> Any:
        """Return what changes with a file."""
        return self.fs.checksum(self._strip_protocol(path))

    def ukey(self, path: str) -> Any:
        """Return what changes with a file."""
        return self.fs.ukey(self._strip_protocol(path))

    def sign(self, path: str, *arguments: Any, **options: Any) -> Any:
        """Return a URL with a signature."""
        return self.fs.sign(self._strip_protocol(path), *arguments, **options)

    def invalidate_cache(self, path: str | None = None) -> None:
        """Drop what is kept of a file, or of all; and the listings behind."""
        if path is None:
            for kind in ("whole/", "part/"):
                self._kept.drop_folder(kind)
        else:
            self._kept.drop_object(self._strip_protocol(path))
        self.fs.invalidate_cache(path)

    # What changes a file: it is done behind, and what is kept of the file is dropped.

    @contextmanager
    def _changing(self, *paths: str, is_folder: bool = False) -> Iterator[None]:
        """Change files in the body."""
        if not paths:
            yield
            return
        first, *others = paths
        with (
            self._kept.writing(first, is_folder=is_folder),
            self._changing(*others, is_folder=is_folder),
        ):
            yield

    def pipe_file(self, path: str, value: Any, mode: str = "overwrite", **options: Any) -> None:
        """Write a file."""
        path = self._strip_protocol(path)
        with self._changing(path):
            self.fs.pipe_file(path, value, mode=mode, **options)

    def put_file(self, lpath: Any, rpath: str, *arguments: Any, **options: Any) -> None:
        """Write a file from a local one."""
        path = self._strip_protocol(rpath)
        with self._changing(path):
            self.fs.put_file(lpath, path, *arguments, **options)

    def cp_file(self, path1: str, path2: str, **options: Any) -> None:
        """Copy a file."""
        path1, path2 = self._strip_protocol(path1), self._strip_protocol(path2)
        with self._changing(path2):
            self.fs.cp_file(path1, path2, **options)

    def rm_file(self, path: str) -> None:
        """Remove a file."""
        path = self._strip_protocol(path)
        with self._changing(path):
            self.fs.rm_file(path)

    _rm = rm_file

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove files, or with `recursive` all below a folder."""
        paths = self._strip_protocol(path)
        below = [_GLOB.split(one)[0] for one in ([paths] if isinstance(paths, str) else paths)]
        with self._changing(*below, is_folder=True):
            self.fs.rm(paths, recursive=recursive, maxdepth=maxdepth)

    def mv(self, path1: Any, path2: Any, *arguments: Any, **options: Any) -> None:
        """Move files: each is copied, and removed."""
        AbstractFileSystem.mv(self, path1, path2, *arguments, **options)

    def mkdir(self, path: str, create_parents: bool = True, **options: Any) -> None:
        """Make a folder."""
        self.fs.mkdir(self._strip_protocol(path), create_parents=create_parents, **options)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make a folder, and those around it."""
        self.fs.makedirs(self._strip_protocol(path), exist_ok=exist_ok)

    def rmdir(self, path: str) -> None:
        """Remove an empty folder."""
        self.fs.rmdir(self._strip_protocol(path))

    # What reads.

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **options: Any
    ) -> bytes:
        """Return the bytes of a file, or a part of them, from blocks.

        Raises:
            FileNotFoundError: it is absent.
        """
        path = self._strip_protocol(path)
        version = self._blocks.version(path)
        if version is None:
            return bytes(self.fs.cat_file(path, start=start, end=end, **options))
        first, last, _ = slice(start, end).indices(version.size)
        return self._blocks.read(path, version, first, last)

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: Any = None,
        **options: Any,
    ) -> Any:
        path = self._strip_protocol(path)
        version = self._blocks.version(path) if mode == "rb" else None
        if version is not None:
            return BlockFile(self, path, mode, self._block_size, cache_type="none",
                             size=version.size, version=version,
                             blocks=self._blocks)  # fmt: skip
        file = self.fs._open(
            path, mode=mode, block_size=block_size, autocommit=autocommit,
            cache_options=cache_options, **options,
        )  # fmt: skip
        if mode == "rb":
            return file  # It does not say how long it is: it cannot be cut into blocks.
        return WrittenFile(file, self._kept, path)


class BlockFile(AbstractBufferedFile):
    """An open file that is read in blocks.

    Args:
        fs: Its file system.
        path: Its path.
        mode: `"rb"`.
        block_size: The bytes of a block.
        version: The version of the file that is read.
        blocks: The blocks of the files of its file system.
        options: Those of all buffered files.
    """

    def __init__(
        self,
        fs: CachedFileSystem,
        path: str,
        mode: str,
        block_size: int,
        *,
        version: FileVersion,
        blocks: FileBlocks,
        **options: Any,
    ) -> None:
        super().__init__(fs, path, mode, block_size, **options)
        self._blocks = blocks
        self._version = version
        self._next = 0  # Where a sequential reader goes on.
        self._ahead = 0

    def _fetch_range(self, start: int, end: int) -> bytes:
        self._ahead = min(max(self._ahead * 2, 1), BLOCKS_AHEAD) if start == self._next else 0
        self._next = end
        ahead = self._ahead if start else 0  # The first read says nothing yet.
        return self._blocks.read(self.path, self._version, start, end, ahead)

    def __reduce__(self) -> Any:
        return _reopen_file, (self.fs, self.path, self.loc)


class WrittenFile:
    """A file behind that is written; until it is closed, nothing that is read of it is kept.

    Args:
        file: The open file of the file system behind.
        kept: What is kept of its files.
        path: Its path.
    """

    def __init__(self, file: Any, kept: ReadThrough, path: str) -> None:
        self._file = file
        self._kept = kept
        self._path = path
        self._writing: Writing | None = kept.begin_writing(path)

    def __getattr__(self, name: str) -> Any:
        if name == "_file":
            raise AttributeError(name)  # Its constructor failed.
        return getattr(self._file, name)

    def __enter__(self) -> WrittenFile:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._file)

    def close(self) -> None:
        """Close the file; without a transaction it is written then."""
        try:
            self._file.close()
        finally:
            self._end()

    def commit(self) -> None:
        """Put the file in its place, at the end of a transaction."""
        with self._kept.writing(self._path):
            self._file.commit()

    def _end(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            self._kept.end_writing(writing)

    def __del__(self) -> None:
        if "_writing" in self.__dict__:
            self._end()


def _open_target(protocol: str | None, options: dict[str, Any] | None) -> AbstractFileSystem:
    return fsspec.filesystem(protocol, **(options or {}))


def _identity(fs: AbstractFileSystem) -> str:
    """Return what distinguishes the file system behind from others, without secrets."""
    protocol = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
    options = getattr(fs, "storage_options", {})
    client = options.get("client_kwargs") or {}
    names = ("endpoint_url", "host", "port", "username", "account_name", "fo", "target_protocol",
             "org", "repo", "sha", "path", "url", "base_url")  # fmt: skip
    where = [str(found) for name in names if (found := options.get(name) or client.get(name))]
    if protocol == "memory":
        where.append(f"process {os.getpid()}")
    return "/".join([protocol, *where])


def _reopen_cached(
    handle: ManagerHandle, fs: AbstractFileSystem, options: dict[str, Any]
) -> CachedFileSystem:
    manager = open_handle(handle)
    if is_unopened(manager):
        memory = int(parse_size(options["worker_memory"], name="worker_memory"))
        manager = worker_for(handle.token, memory)
    return CachedFileSystem(fs=fs, manager=manager, **options)


def _reopen_file(fs: CachedFileSystem, path: str, at: int) -> Any:
    file = fs.open(path, "rb")
    file.seek(at)
    return file


MemoriesFileSystem.in_front_of_others = CachedFileSystem
