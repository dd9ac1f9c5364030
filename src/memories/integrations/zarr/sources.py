"""What a cache asks of the store behind it: a value with its tag, and the tag alone.

A tag changes when the value does: an ETag, or time and size of a file. Stores that have none give
None; a value of theirs is fetched again when it is too old.
"""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any, NamedTuple

from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import FsspecStore, LocalStore, ObjectStore, ZipStore

from memories.errors import CorruptDataError, InvalidOptionTypeError
from memories.integrations.tags import tag_of

GONE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


class Fetched(NamedTuple):
    """A value of a source, None if it is absent there, and its tag."""

    content: bytes | None
    tag: str | None = None


class PlainSource:
    """A store that has no tags.

    Attributes:
        store: The store.
        has_tags: Whether the source can say that a value has not changed.
    """

    has_tags = False

    def __init__(self, store: Any) -> None:
        self.store = store

    @property
    def identity(self) -> str:
        """Return what the store is, as far as it says so."""
        kind = type(self.store)
        return f"{kind.__module__}.{kind.__qualname__}"

    @property
    def address(self) -> str | None:
        """Return where its values are, in this process and in others; None if it does not say."""
        return None

    async def fetch(self, key: str, byte_range: ByteRequest | None) -> Fetched:
        """Return the value of `key`, or a part of it."""
        found = await self.store.get(key, default_buffer_prototype(), byte_range)
        return Fetched(None if found is None else found.to_bytes())

    async def tag(self, key: str) -> str | None:
        """Return the tag of the value that the source has now; None if it has none."""
        del key
        return None


class ZipSource(PlainSource):
    """A ZIP, which has an address; its values do not change while it is open."""

    @property
    def identity(self) -> str:
        """Return the path of the file, and which file it is."""
        return f"{self.address}#{_file_tag(Path(self.store.path))}"

    @property
    def address(self) -> str | None:
        """Return the path of the file."""
        return f"zip://{Path(self.store.path).resolve()}"


class LocalSource(PlainSource):
    """Files, whose tag is when they were written, and how long they are."""

    has_tags = True

    @property
    def identity(self) -> str:
        """Return the path of the directory."""
        return f"file://{Path(self.store.root).resolve()}"

    @property
    def address(self) -> str | None:
        """Return the path of the directory."""
        return self.identity

    async def fetch(self, key: str, byte_range: ByteRequest | None) -> Fetched:
        """Return the value of `key`, with the tag that its file had before."""
        tag = await self.tag(key)
        return (await super().fetch(key, byte_range))._replace(tag=tag)

    async def tag(self, key: str) -> str | None:
        """Return the tag of a file; None if it is absent."""
        return await asyncio.to_thread(_file_tag, Path(self.store.root, key))


class ObjectSource(PlainSource):
    """A bucket through obstore: an answer has the ETag of the value in it."""

    has_tags = True

    @property
    def identity(self) -> str:
        """Return the bucket and the prefix."""
        store = self.store.store
        config = getattr(store, "config", {})
        names = ("endpoint", "aws_endpoint", "bucket", "container_name", "account_name")
        where = [str(config[name]) for name in names if name in config]
        where += [str(getattr(store, name)) for name in ("url", "prefix") if hasattr(store, name)]
        return f"{type(store).__name__}:{'/'.join(where)}"

    @property
    def address(self) -> str | None:
        """Return the bucket and the prefix; None for a store in RAM."""
        return None if type(self.store.store).__name__ == "MemoryStore" else self.identity

    async def fetch(self, key: str, byte_range: ByteRequest | None) -> Fetched:
        """Return the value of `key` with its ETag, in one request.

        Raises:
            CorruptDataError: the body is shorter than the bucket said.
        """
        import obstore

        options: Any = {}
        if isinstance(byte_range, RangeByteRequest):
            options["range"] = (byte_range.start, byte_range.end)
        elif isinstance(byte_range, OffsetByteRequest):
            options["range"] = {"offset": byte_range.offset}
        elif isinstance(byte_range, SuffixByteRequest):
            options["range"] = {"suffix": byte_range.suffix}
        try:
            answer = await obstore.get_async(self.store.store, key, options=options)
            content = bytes(await answer.bytes_async())
        except GONE:
            return Fetched(None)
        except obstore.exceptions.NotSupportedError:
            return await super().fetch(key, byte_range)  # Azure knows no suffix.
        start, stop = answer.range
        require_length(key, content, stop - start)
        return Fetched(content, answer.meta.get("e_tag"))

    async def tag(self, key: str) -> str | None:
        """Return the ETag; None if the object is absent."""
        import obstore

        try:
            return (await obstore.head_async(self.store.store, key)).get("e_tag")
        except GONE:
            return None


class FsspecSource(PlainSource):
    """A file system of fsspec, whose tags need a request of their own."""

    has_tags = True

    @property
    def identity(self) -> str:
        """Return the protocol, the server and the path."""
        fs = self.store.fs
        protocol = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
        endpoint = getattr(fs, "endpoint_url", None) or ""
        return f"{protocol}:{endpoint}:{self.store.path}"

    @property
    def address(self) -> str | None:
        """Return the same; None for a file system in RAM."""
        return None if self.identity.startswith("memory:") else self.identity

    async def fetch(self, key: str, byte_range: ByteRequest | None) -> Fetched:
        """Return the value of `key`; a part of it with the tag that the file had before.

        Raises:
            CorruptDataError: the body is shorter than the file.
        """
        if byte_range is None:
            return await super().fetch(key, None)
        info = await self._info(key)
        if info is None:
            return Fetched(None)
        found = await super().fetch(key, byte_range)
        size = info.get("size")
        if found.content is not None and isinstance(size, int):
            require_length(key, found.content, length_of(byte_range, size))
        return found._replace(tag=tag_of(info))

    async def tag(self, key: str) -> str | None:
        """Return the ETag, or time and size; None if the file is absent or says neither."""
        info = await self._info(key)
        return None if info is None else tag_of(info)

    async def _info(self, key: str) -> dict[str, Any] | None:
        fs = self.store.fs
        path = f"{self.store.path.rstrip('/')}/{key}"
        fresh = {"refresh": True} if "refresh" in inspect.signature(fs._info).parameters else {}
        try:
            info: dict[str, Any] = await fs._info(path, **fresh)
        except self.store.allowed_exceptions:
            return None
        return info


def source_of(store: object) -> PlainSource:
    """Return how the values of `store` are fetched.

    Raises:
        InvalidOptionTypeError: it is not a store of zarr.
    """
    if not isinstance(store, Store):
        raise InvalidOptionTypeError(
            f"source={store!r:.60} must be a store of zarr, not a {type(store).__name__}"
        )
    for kind, source in _SOURCES:
        if isinstance(store, kind):
            return source(store)
    return PlainSource(store)


_SOURCES: tuple[tuple[type, type[PlainSource]], ...] = (
    (LocalStore, LocalSource),
    (ObjectStore, ObjectSource),
    (FsspecStore, FsspecSource),
    (ZipStore, ZipSource),
)


def require_length(key: str, content: bytes, expected: int) -> None:
    """Raise CorruptDataError if a body is not as long as it should be."""
    if len(content) != expected:
        raise CorruptDataError(
            f"{key!r}: the source answered with {len(content)} bytes instead of {expected}: "
            "nothing of it was kept; read again"
        )


def length_of(byte_range: ByteRequest, size: int) -> int:
    """Return how many bytes of a value of `size` bytes a request asks for."""
    if isinstance(byte_range, RangeByteRequest):
        asked = slice(byte_range.start, byte_range.end)
    elif isinstance(byte_range, OffsetByteRequest):
        asked = slice(byte_range.offset, None)
    else:
        asked = slice(max(size - byte_range.suffix, 0), None)
    return len(range(size)[asked])


def _file_tag(path: Path) -> str | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return f"{found.st_mtime_ns}/{found.st_size}/{found.st_ino}"
