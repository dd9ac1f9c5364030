"""A store of zarr whose chunks and metadata are values of a manager, as bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from itertools import islice
from typing import Any

from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype

from memories.core.manager import MemoryManager
from memories.core.manager_handle import ManagerHandle, handle_of, open_handle
from memories.core.pickled_reader import is_unopened
from memories.engine.lifecycle_state import LifecycleState
from memories.errors import ConflictError, InvalidOptionTypeError, KeyNotFoundError
from memories.integrations.byte_values import folder, is_in_ram, read_bytes, size_of
from memories.integrations.managers import check_manager
from memories.model.tiers import StoreTier
from memories.options.settings import check_flag, check_store_tier

LISTED_AT_ONCE = 1000  # Keys that a thread lists before the event loop gets them.


class MemoriesStore(Store):
    """A store of zarr whose contents are in the tiers of a manager.

    Its keys are those of the manager, after `prefix`. A read from RAM happens in the event loop, a
    read from the disk or the bucket, and each write, in a thread. All event loops and threads of a
    process may share one. Pickled, it is a handle: in the process that opened the manager and in
    its forks the same store, in another process a read-only one of the same directory; all values
    are written to the disk first.

    Args:
        manager: The manager.
        prefix: What the keys begin with; `"cubes"` is the same as `"cubes/"`.
        read_only: Refuse to write. A manager that only reads makes the store read-only.
        tier: The tier that a value is stored in first: `"cold"` makes each write durable when it
            returns, `"auto"` once it has moved down or `flush()` was called.

    Raises:
        InvalidOptionTypeError: `manager` is not a manager.
    """

    supports_writes: bool = True
    supports_deletes: bool = True
    supports_listing: bool = True

    def __init__(
        self,
        manager: MemoryManager,
        prefix: str = "",
        *,
        read_only: bool = False,
        tier: StoreTier = "auto",
    ) -> None:
        super().__init__(
            read_only=check_flag("read_only", read_only) or _only_reads(check_manager(manager))
        )
        self._manager = manager
        self._prefix = folder(prefix)
        self._tier = check_store_tier(tier)

    @property
    def manager(self) -> MemoryManager:
        """The manager that holds the values."""
        return self._manager

    @property
    def prefix(self) -> str:
        """What the keys of this store begin with in the manager."""
        return self._prefix

    def with_read_only(self, read_only: bool = False) -> MemoriesStore:
        """Return a store of the same values that refuses to write, or does not."""
        return MemoriesStore(self._manager, self._prefix, read_only=read_only, tier=self._tier)

    def __eq__(self, other: object) -> bool:
        return (
            type(other) is type(self)
            and other._manager._lifecycle is self._manager._lifecycle
            and (other._prefix, other.read_only) == (self._prefix, self.read_only)
        )

    __hash__ = Store.__hash__

    def __str__(self) -> str:
        where = self._manager._services.settings.storage_path
        return f"memories://{where or id(self._manager)}/{self._prefix}"

    def __repr__(self) -> str:
        return f"MemoriesStore({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        handle = handle_of(self._manager)
        return _reopen, (handle, self._prefix, self.read_only, self._tier)

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return the value of `key`, or a part of it; None if it is absent."""
        self._is_open = True
        start, stop = _bounds(byte_range)
        value = read_bytes(self._manager, self._prefix + key, start, stop)
        if value is None:
            return None
        return (prototype or default_buffer_prototype()).buffer.from_bytes(value)

    def set_sync(self, key: str, value: Buffer) -> None:
        """Store `value` under `key`."""
        self._begin_write()
        self._manager.store(self._prefix + key, content_of(key, value), self._tier)

    def delete_sync(self, key: str) -> None:
        """Remove `key`, if it is there."""
        self._begin_write()
        try:
            self._manager.delete(self._prefix + key)
        except KeyNotFoundError:
            pass  # Zarr removes chunks that were never written.

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return the value of `key`, or a part of it; None if it is absent."""
        in_ram = is_in_ram(self._manager, self._prefix + key)
        if in_ram is None:
            self._is_open = True
            return None
        if in_ram:
            return self.get_sync(key, prototype=prototype, byte_range=byte_range)
        return await asyncio.to_thread(
            self.get_sync, key, prototype=prototype, byte_range=byte_range
        )

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return parts of many values, in the order asked for."""
        return await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges))

    async def exists(self, key: str) -> bool:
        """Return whether `key` is there."""
        return self._manager.exists(self._prefix + key)

    async def set(self, key: str, value: Buffer) -> None:
        """Store `value` under `key`."""
        await asyncio.to_thread(self.set_sync, key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Store `value` under `key` unless something is there, atomically."""
        self._begin_write()
        try:
            await asyncio.to_thread(
                self._manager.store,
                self._prefix + key,
                content_of(key, value),
                self._tier,
                if_version=0,
            )
        except ConflictError:
            pass  # Another call has stored the key.

    async def _set_many(self, values: Iterable[tuple[str, Buffer]]) -> None:
        self._begin_write()
        contents = {self._prefix + key: content_of(key, value) for key, value in values}
        await asyncio.to_thread(self._manager.store_many, contents, self._tier)

    async def delete(self, key: str) -> None:
        """Remove `key`, if it is there."""
        await asyncio.to_thread(self.delete_sync, key)

    async def delete_dir(self, prefix: str) -> None:
        """Remove all keys below `prefix`."""
        self._begin_write()
        await asyncio.to_thread(self._manager.delete_prefix, self._prefix + folder(prefix))

    async def list(self) -> AsyncIterator[str]:
        """Yield all keys."""
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield the keys that begin with `prefix`."""
        keys = self._manager.scan(self._prefix + prefix)
        while found := await asyncio.to_thread(lambda: [*islice(keys, LISTED_AT_ONCE)]):
            for key in found:
                yield key[len(self._prefix) :]

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names directly below `prefix`, of keys and of folders."""
        start = self._prefix + folder(prefix)
        names = self._manager.scan(start, delimiter="/")
        seen = set()  # A key and a folder may have the same name, with `a-b` between them.
        while found := await asyncio.to_thread(lambda: [*islice(names, LISTED_AT_ONCE)]):
            for name in found:
                child = name[len(start) :].rstrip("/")
                if child not in seen:
                    seen.add(child)
                    yield child

    async def getsize(self, key: str) -> int:
        """Return how many bytes the value of `key` has.

        Raises:
            FileNotFoundError: it is absent.
        """
        size = await asyncio.to_thread(size_of, self._manager, self._prefix + key)
        if size is None:
            raise FileNotFoundError(key)
        return size

    async def getsize_prefix(self, prefix: str) -> int:
        """Return how many bytes the values below `prefix` have."""
        return await asyncio.to_thread(self._size_below, self._prefix + folder(prefix))

    def _size_below(self, prefix: str) -> int:
        return sum(size_of(self._manager, key) or 0 for key in self._manager.scan(prefix))

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncGenerator[tuple[str, Buffer | None], None]:
        wanted = [*requests]
        found = await asyncio.gather(*(self.get(*request) for request in wanted))
        for (key, *_), value in zip(wanted, found, strict=True):
            yield key, value

    def _begin_write(self) -> None:
        self._check_writable()
        self._is_open = True


def _reopen(handle: ManagerHandle, prefix: str, read_only: bool, tier: StoreTier) -> MemoriesStore:
    return MemoriesStore(open_handle(handle), prefix, read_only=read_only, tier=tier)


def _only_reads(manager: MemoryManager) -> bool:
    return is_unopened(manager) or manager._hierarchy.state is LifecycleState.READ_ONLY


def content_of(key: str, value: object) -> bytes:
    """Return the bytes of a buffer of zarr."""
    if not isinstance(value, Buffer):
        raise InvalidOptionTypeError(
            f"the value of {key!r} must be a Buffer of zarr, not a {type(value).__name__}"
        )
    return bytes(value.to_bytes())


def _bounds(byte_range: ByteRequest | None) -> tuple[int, int | None]:
    """Return the first byte that is asked for, and the one after the last."""
    if byte_range is None:
        return 0, None
    if isinstance(byte_range, RangeByteRequest):
        return byte_range.start, byte_range.end
    if isinstance(byte_range, OffsetByteRequest):
        return byte_range.offset, None
    if isinstance(byte_range, SuffixByteRequest):
        return (-byte_range.suffix, None) if byte_range.suffix else (0, 0)
    raise InvalidOptionTypeError(
        f"no request of zarr: Unexpected byte_range, got {byte_range!r:.60}"
    )
