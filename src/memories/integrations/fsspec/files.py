"""A file system whose files are the values of a manager that are bytes."""

from __future__ import annotations

from datetime import UTC
from typing import Any, ClassVar

from fsspec.implementations.chained import ChainedFileSystem
from fsspec.spec import AbstractBufferedFile
from fsspec.utils import stringify_path

from memories.core.manager import MemoryManager
from memories.core.manager_handle import ManagerHandle, handle_of, open_handle
from memories.errors import (
    ConflictError,
    InvalidOptionError,
    KeyNotFoundError,
)
from memories.integrations.byte_values import folder, read_bytes, size_of
from memories.integrations.managers import check_manager, named
from memories.model.tiers import StoreTier
from memories.options.settings import check_store_tier

PROTOCOL = "memories"


class MemoriesFileSystem(ChainedFileSystem):
    """Files in the tiers; in front of another protocol, `memories::s3://`, blocks of its files.

    Without another protocol a file is a value that is bytes, and its path is its key, below
    `prefix`. In a URL, `memories://name/key`, the first part is the name that `register` gave to
    the manager. Folders are the beginnings of keys: an empty one does not exist. In front of
    another protocol it is a `CachedFileSystem`, with the arguments of that.

    Args:
        manager: The manager; None takes the one that is registered by the first part of a path.
        prefix: What all keys begin with.
        tier: The tier that a file enters first.
    """

    protocol = PROTOCOL
    in_front_of_others: ClassVar[type[Any]]  # The class for that, which sets it.
    cachable = False  # Its manager may be closed, and another one opened in the place of it.

    def __new__(cls, *arguments: Any, **options: Any) -> Any:
        """Make a `CachedFileSystem` where there is another file system behind this one."""
        if cls is MemoriesFileSystem and (
            options.get("target_protocol") is not None or options.get("fs") is not None
        ):
            return super().__new__(cls.in_front_of_others)
        return super().__new__(cls)

    def __init__(
        self,
        manager: MemoryManager | None = None,
        prefix: str = "",
        *,
        tier: StoreTier = "auto",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._manager = None if manager is None else check_manager(manager)
        self._prefix = folder(prefix)
        self._tier = check_store_tier(tier)

    def __reduce__(self) -> Any:
        if self._manager is None:
            return type(self), (None, self._prefix)
        return _reopen, (handle_of(self._manager), self._prefix, self._tier)

    def __eq__(self, other: object) -> bool:
        return (
            type(other) is type(self)
            and other._prefix == self._prefix
            and (other._manager and other._manager._lifecycle)
            is (self._manager and self._manager._lifecycle)
        )

    def __hash__(self) -> int:
        return hash((type(self), self._prefix))

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        """Return a path without protocol and slashes around it."""
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        path = stringify_path(path)
        for start in (f"{PROTOCOL}://", f"{PROTOCOL}::"):
            path = path.removeprefix(start)
        return path.strip("/")

    @property
    def fsid(self) -> str:
        """What distinguishes this file system from others."""
        return f"{PROTOCOL}:{self._prefix}"

    def _locate(self, path: str) -> tuple[MemoryManager, str, str]:
        """Return the manager of a path, the key in it, and how paths of that manager begin.

        Raises:
            InvalidOptionError: there is neither a manager nor one of that name.
        """
        path = self._strip_protocol(path)
        if self._manager is not None:
            return self._manager, self._prefix + path, ""
        name, _, rest = path.partition("/")
        manager = named(name)
        if manager is None:
            raise InvalidOptionError(
                f"there is no manager of the name {name!r}: call memories.fsspec.register(name, "
                "manager) first, or give manager="
            )
        return manager, self._prefix + rest, f"{name}/"

    def _path_of(self, key: str, start: str) -> str:
        return start + key[len(self._prefix) :]

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """Return the size and the times of a file, or that it is a folder.

        Raises:
            FileNotFoundError: it is neither.
        """
        manager, key, start = self._locate(path)
        found = self._file(manager, key, start) if key else None
        if found is not None:
            return found
        below = folder(key) if key else self._prefix
        if not key or key == self._prefix or next(manager.scan(below, "/"), None) is not None:
            return {"name": self._path_of(key, start).rstrip("/"), "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def _file(self, manager: MemoryManager, key: str, start: str) -> dict[str, Any] | None:
        size = size_of(manager, key) if key and not key.endswith("/") else None
        if size is None:
            return None
        try:
            found = manager.info(key)
        except KeyNotFoundError:
            return None
        return {
            "name": self._path_of(key, start),
            "size": size,
            "type": "file",
            "created": found.stored_at,
            "mtime": found.stored_at,
            "ETag": str(found.version),
            "tier": str(found.tier),
        }

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        """Return what is directly below a folder, or a file itself.

        Raises:
            FileNotFoundError: nothing is there.
        """
        manager, key, start = self._locate(path)
        below = folder(key)
        found: list[dict[str, Any]] = []
        for name in manager.scan(below, "/"):
            if name.endswith("/"):
                inner = self._path_of(name, start).rstrip("/")
                found.append({"name": inner, "size": 0, "type": "directory"})
            elif (file := self._file(manager, name, start)) is not None:
                found.append(file)
        if not found:
            one = self.info(path)
            found = [one] if one["type"] == "file" else []
        return found if detail else sorted(one["name"] for one in found)

    def exists(self, path: str, **options: Any) -> bool:
        """Return whether a file or a folder is there."""
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True  # Another error is raised: "closed" is not "absent".

    def isfile(self, path: str) -> bool:
        """Return whether a file is there."""
        try:
            return bool(self.info(path)["type"] == "file")
        except FileNotFoundError:
            return False

    def created(self, path: str) -> Any:
        """Return when a file was stored."""
        return _time(self.info(path)["created"])

    def modified(self, path: str) -> Any:
        """Return when a file was stored."""
        return _time(self.info(path)["mtime"])

    def checksum(self, path: str) -> int:
        """Return a number that changes with the file."""
        return int(self.info(path)["ETag"])

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **options: Any
    ) -> bytes:
        """Return the bytes of a file, or a part of them; only that part is read.

        Raises:
            FileNotFoundError: it is absent.
        """
        manager, key, _ = self._locate(path)
        first = start or 0
        if first < 0 and end is not None:
            first = max((size_of(manager, key) or 0) + first, 0)
        content = read_bytes(manager, key, first, end) if key else None
        if content is None:
            raise FileNotFoundError(path)
        return bytes(content)

    def pipe_file(self, path: str, value: Any, mode: str = "overwrite", **options: Any) -> None:
        """Store a file; with `mode="create"` only where there is none, atomically.

        Raises:
            FileExistsError: there is one.
        """
        manager, key, _ = self._locate(path)
        version = 0 if mode == "create" else None
        try:
            manager.store(key, bytes(value), self._tier, if_version=version)
        except ConflictError:
            raise FileExistsError(path) from None

    def cp_file(self, path1: str, path2: str, **options: Any) -> None:
        """Copy a file; a folder has no contents of its own.

        Raises:
            FileNotFoundError: it is absent.
        """
        manager, key, _ = self._locate(path1)
        other, new, _ = self._locate(path2)
        if other is not manager:
            self.pipe_file(path2, self.cat_file(path1))
            return
        try:
            manager.copy(key, new)  # Nothing is decoded.
        except KeyNotFoundError:
            if not self.isdir(path1):
                raise FileNotFoundError(path1) from None

    def mv(
        self,
        path1: Any,
        path2: Any,
        recursive: bool = False,
        maxdepth: int | None = None,
        **options: Any,
    ) -> None:
        """Move files; a single one gets another key, and is not copied."""
        if isinstance(path1, str) and isinstance(path2, str) and not path2.endswith("/"):
            manager, key, _ = self._locate(path1)
            other, new, _ = self._locate(path2)
            if other is manager and self.isfile(path1) and not self.isdir(path2):
                manager.rename(key, new)
                return
        super().mv(path1, path2, recursive=recursive, maxdepth=maxdepth, **options)

    def _rm(self, path: str) -> None:
        manager, key, _ = self._locate(path)
        try:
            manager.delete(key)
        except KeyNotFoundError:
            raise FileNotFoundError(path) from None

    def rm_file(self, path: str) -> None:
        """Remove a file; FileNotFoundError if it is absent."""
        self._rm(path)

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove files, or with `recursive` all below a folder.

        Raises:
            FileNotFoundError: nothing is there.
        """
        for one in self.expand_path(path, recursive=recursive, maxdepth=maxdepth)[::-1]:
            manager, key, _ = self._locate(one)
            if key and manager.exists(key):
                self._rm(one)

    def mkdir(self, path: str, create_parents: bool = True, **options: Any) -> None:
        """Do nothing: a folder exists while there is a file below it."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Do nothing: a folder exists while there is a file below it."""

    def rmdir(self, path: str) -> None:
        """Raise unless a folder is empty, and so does not exist.

        Raises:
            OSError: there are files below it.
        """
        if self.isdir(path) and self.ls(path):
            raise OSError(f"the folder {path!r} is not empty")

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: Any = None,
        **options: Any,
    ) -> MemoriesFile:
        if mode == "xb" and self.exists(path):
            raise FileExistsError(path)
        return MemoriesFile(
            self,
            path,
            mode,
            block_size or "default",
            autocommit,
            cache_type="none",
            cache_options=cache_options,
        )


class MemoriesFile(AbstractBufferedFile):
    """A value that is read in parts, or written as a whole when the file is closed."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return bytes(self.fs.cat_file(self.path, start, end))

    def _initiate_upload(self) -> None:
        """Begin with what is there, if it is to be appended to."""
        self._content = bytearray()
        if self.mode == "ab" and self.fs.exists(self.path):
            self._content += self.fs.cat_file(self.path)

    def _upload_chunk(self, final: bool = False) -> bool:
        """Take what was written since; store all at the end."""
        self._content += self.buffer.getvalue()
        if final and self.autocommit:
            self.commit()
        return True

    def commit(self) -> None:
        """Store the file."""
        mode = "create" if self.mode == "xb" else "overwrite"
        self.fs.pipe_file(self.path, self._content, mode=mode)

    def discard(self) -> None:
        """Throw away what was written."""
        self._content = bytearray()


def _time(seconds: float) -> Any:
    from datetime import datetime

    return datetime.fromtimestamp(seconds, UTC)


def _reopen(handle: ManagerHandle, prefix: str, tier: StoreTier) -> MemoriesFileSystem:
    return MemoriesFileSystem(open_handle(handle), prefix, tier=tier)
