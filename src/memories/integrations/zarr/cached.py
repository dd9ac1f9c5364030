"""A store of zarr that keeps what it reads from another one in the tiers of a manager."""

from __future__ import annotations

import asyncio
import hashlib
import re
import weakref
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
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
from memories.core.manager_handle import (
    READERS_KEPT,
    ManagerHandle,
    handle_of,
    open_handle,
    token_of,
)
from memories.core.pickled_reader import is_unopened
from memories.errors import ConflictError, InvalidOptionError, InvalidOptionTypeError
from memories.foundation.fork_lock import new_lock
from memories.foundation.logging import logger
from memories.foundation.units import format_size, parse_size
from memories.integrations.byte_values import folder
from memories.integrations.managers import check_manager
from memories.integrations.read_through import (
    FLIGHT_SECONDS,
    AbandonedError,
    Fetch,
    KeepTerms,
    Kept,
    KeptState,
    ReadThrough,
    shared_read_through,
    worker_for,
)
from memories.integrations.zarr.lost_arrays import LostArrays
from memories.integrations.zarr.neighbours import Neighbours
from memories.integrations.zarr.reads import ArrayReads, array_of
from memories.integrations.zarr.sources import Fetched, source_of
from memories.integrations.zarr.store import content_of
from memories.model.tiers import StoreTier

_CHUNK = re.compile(r"(?:.*/)?(?:c[/.])?\d+(?:[./]\d+)*")


class _Shared:
    """What all stores of this process over one source and one manager have in common."""

    def __init__(self, kept: ReadThrough) -> None:
        self.kept = kept
        self.lock = new_lock()
        self.reads: dict[str, ArrayReads] = {}
        self.neighbours = Neighbours(kept.memory // 8)
        self.tasks: set[asyncio.Task[None]] = set()

    def count(self, key: str, **amounts: int) -> None:
        """Add to the counters of the array of `key`."""
        with self.lock:
            reads = self.reads.setdefault(array_of(key), ArrayReads())
            for name, amount in amounts.items():
                setattr(reads, name, getattr(reads, name) + amount)


class CachedStore(Store):
    """A store of zarr in front of another one, whose chunks and metadata it keeps in the tiers.

    A value that is kept is served from RAM or disk. Callers that need the same absent value at the
    same time share one request. A write goes to the source first, and then into the tiers. What is
    kept may be evicted: the budgets of the manager hold, and a full tier is no error. Where the
    manager has a `storage_path`, what is kept survives the process.

    A kept value is served for `max_age` seconds without asking the source. After that the source
    is asked whether the value has changed, where it has ETags or times (obstore, fsspec, files);
    another source sends the value again. A change at the source is therefore seen after `max_age`
    at the latest. Parts of one object, of a shard for example, never mix two versions of it where
    the source has tags.

    Pickled, it is a handle: in another process it reads what is on the disk of the manager and
    fetches the rest itself.

    Args:
        source: A store of zarr: in a bucket, in a ZIP, of icechunk.
        manager: The manager that holds what is kept.
        prefix: Where it is kept; None derives it from the address of the source.
        max_age: Seconds; None for a source that never changes, 0 to ask at each read.
        absent_seconds: Seconds for which it is remembered that a chunk is absent.
        read_only: Refuse to write. A source that is read-only makes this store read-only.
        tier: The tier that a value enters first.
        prefetch: Fetch the chunks that a pan will probably read next.
        worker_memory: The RAM for what a process that only reads the manager fetches itself.

    Raises:
        InvalidOptionError: the prefix holds values of another source, or the source has no address
            and there is no prefix.
    """

    def __init__(
        self,
        source: Store,
        manager: MemoryManager,
        *,
        prefix: str | None = None,
        max_age: float | None = 300.0,
        absent_seconds: float = 10.0,
        read_only: bool = False,
        tier: StoreTier = "auto",
        prefetch: bool = True,
        worker_memory: float | str = "128 MB",
    ) -> None:
        found = source_of(source)
        check_manager(manager)
        if prefix is None:
            if found.address is None:
                raise InvalidOptionError(
                    f"a {type(source).__name__} has no address that another process could use: "
                    "give prefix=, and use it for this source only"
                )
            prefix = f"cached/{hashlib.sha256(found.address.encode()).hexdigest()[:16]}"
        super().__init__(read_only=read_only or source.read_only)
        self._source = found
        self._options: dict[str, Any] = {
            "prefix": prefix,
            "max_age": max_age,
            "absent_seconds": absent_seconds,
            "tier": tier,
            "prefetch": prefetch,
            "worker_memory": worker_memory,
        }
        self._manager = manager
        self._terms = KeepTerms.checked(max_age, absent_seconds, tier)
        memory = parse_size(worker_memory, name="worker_memory")
        self._shared = _shared_by(manager, prefix, found.identity, memory)
        self._neighbours = self._shared.neighbours if prefetch else None
        self._lost = LostArrays(self._shared.kept, found.store)

    @property
    def source(self) -> Store:
        """The store behind this one."""
        return self._source.store

    @property
    def manager(self) -> MemoryManager:
        """The manager that holds what is kept."""
        return self._manager

    @property
    def prefix(self) -> str:
        """What the keys begin with in the manager."""
        return self._shared.kept.prefix

    @property
    def supports_writes(self) -> bool:
        """Whether the source can be written."""
        return bool(self.source.supports_writes)

    @property
    def supports_deletes(self) -> bool:
        """Whether the source can delete."""
        return bool(self.source.supports_deletes)

    @property
    def supports_listing(self) -> bool:
        """Whether the source can list its keys."""
        return bool(self.source.supports_listing)

    def with_read_only(self, read_only: bool = False) -> CachedStore:
        """Return a store of the same values that refuses to write, or does not."""
        twin = object.__new__(CachedStore)
        twin.__dict__.update(self.__dict__)
        try:
            twin._source = source_of(self.source.with_read_only(read_only))
        except NotImplementedError:
            if not read_only:
                raise
            # The twin refuses to write, whatever its source would do.
        twin._read_only = read_only
        twin._is_open = False
        return twin

    def __eq__(self, other: object) -> bool:
        return (
            type(other) is type(self)
            and other.source == self.source
            and other._manager._lifecycle is self._manager._lifecycle
            and (other.prefix, other.read_only) == (self.prefix, self.read_only)
        )

    __hash__ = Store.__hash__

    def __str__(self) -> str:
        return f"memories:{self.prefix}:{self.source}"

    def __repr__(self) -> str:
        return f"CachedStore({self.source!r}, prefix={self.prefix!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        options = {**self._options, "read_only": self.read_only}
        return _reopen, (self.source, handle_of(self._manager), options)

    async def _open(self) -> None:
        await super()._open()
        await self.source._ensure_open()

    def close(self) -> None:
        """Close this store and the one behind it; what is kept stays."""
        super().close()
        self.source.close()

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return the value of `key`, or a part of it; None if it is absent.

        Raises:
            ConflictError: the object changed at the source while it was read in parts.
            CorruptDataError: the source sent less than it said.
            NodeNotFoundError: the array of this chunk was at the source, and is gone.
        """
        await self._ensure_open()
        prototype = prototype or default_buffer_prototype()
        part = _part(byte_range)
        if part is not None:
            whole = await self._look_up(key, ReadThrough.name_of(key))
            if whole.state is KeptState.FRESH:
                return _buffer(prototype, whole.content, byte_range)
        content = await self._read(key, ReadThrough.name_of(key, part), byte_range)
        return _buffer(prototype, content, None)

    async def _read(
        self, key: str, name: str, byte_range: ByteRequest | None
    ) -> bytes | memoryview | None:
        shared, began = self._shared, self._shared.kept.now()
        while True:
            found = await self._look_up(key, name)
            if found.state is KeptState.FRESH:
                self._follow_guess(key, byte_range)
                return found.content
            fetch, mine = shared.kept.begin_fetch(key, name)
            if mine:
                return await self._fetch(fetch, found, byte_range)
            try:
                waiting = asyncio.shield(asyncio.wrap_future(fetch.future))
                content = await asyncio.wait_for(waiting, FLIGHT_SECONDS)
            except AbandonedError:
                continue  # The call that fetched was cancelled.
            except TimeoutError:
                if not fetch.future.done():
                    shared.kept.give_up(fetch)
                elif fetch.begun >= began:
                    raise  # Of the source.
                continue
            except Exception:
                if fetch.begun >= began:
                    raise
                continue  # That request failed, but it was sent before this call.
            shared.count(key, hits=1)
            self._follow_guess(key, byte_range)
            return content

    def _follow_guess(self, key: str, byte_range: ByteRequest | None) -> None:
        """Fetch further ahead, if `key` was fetched ahead and is now read for the first time."""
        if byte_range is None and self._neighbours is not None:
            now = self._shared.kept.now()
            self._fetch_ahead(self._neighbours.after_hit(key, now, self._is_known))

    async def _look_up(self, key: str, name: str) -> Kept:
        """Return what is kept, from the disk in a thread; count a hit."""
        kept = self._shared.kept
        if kept.is_near(name):
            found = kept.look_up(name, self._terms)
        else:
            found = await asyncio.to_thread(kept.look_up, name, self._terms)
        if found.state is KeptState.FRESH:
            absent = found.content is None
            self._shared.count(key, hits=not absent, absent_hits=absent)
        return found

    async def _fetch(
        self, fetch: Fetch, found: Kept, byte_range: ByteRequest | None, *, ahead: bool = False
    ) -> bytes | memoryview | None:
        """Ask the source, keep the answer, and give it to the calls that wait."""
        shared, kept = self._shared, self._shared.kept
        try:
            content: bytes | memoryview | None
            if found.state is KeptState.STALE and await self._is_unchanged(fetch):
                kept.confirm(fetch)
                content = found.content
            else:
                asked = kept.now()
                answer = await self._source.fetch(fetch.key, byte_range)
                content = answer.content
                size = len(content or b"")
                shared.count(fetch.key, requests=1, fetched_bytes=size, prefetched=ahead)
                if content is None and _CHUNK.fullmatch(fetch.key):
                    looked = await self._lost.require(fetch.key)
                    shared.count(fetch.key, requests=looked, checks=looked)
                if byte_range is not None:
                    await asyncio.to_thread(self._check_parts, fetch, answer, byte_range)
                await asyncio.to_thread(
                    kept.keep, fetch, answer.content, answer.tag, asked, self._terms
                )
        except BaseException as error:
            kept.fail_fetch(fetch, error)
            raise
        kept.end_fetch(fetch, content)
        if byte_range is None and content is not None and not ahead:
            self._fetch_neighbours(fetch.key, len(content))
        return content

    def _fetch_neighbours(self, key: str, size: int) -> None:
        """Fetch ahead what will probably be read after a chunk of `size` bytes."""
        if self._neighbours is not None and _CHUNK.fullmatch(key):
            now = self._shared.kept.now()
            self._fetch_ahead(self._neighbours.after_read(key, size, now, self._is_known))

    async def _is_unchanged(self, fetch: Fetch) -> bool:
        """Return whether the source has the value that is kept."""
        if not self._source.has_tags:
            return False
        mine = await asyncio.to_thread(self._shared.kept.tag_of, fetch.name)
        if mine is None:
            return False
        self._shared.count(fetch.key, requests=1, checks=1)
        return mine == await self._source.tag(fetch.key)

    def _check_parts(self, fetch: Fetch, answer: Fetched, byte_range: ByteRequest) -> None:
        """Drop the parts of another version; raise where a caller may have used one of them."""
        kept = self._shared.kept
        other = kept.tag_of_parts(fetch.key, answer.tag)
        if other is None or other == answer.tag:
            return
        kept.drop_object(fetch.key)
        kept.set_tag_of_parts(fetch.key, answer.tag)
        if isinstance(byte_range, RangeByteRequest) and byte_range.start > 0:
            raise ConflictError(
                f"{fetch.key!r} changed at the source while it was read in parts: what was kept of "
                "it was dropped; read again"
            )

    def _is_known(self, key: str) -> bool:
        """Return whether there is no need to fetch `key` ahead."""
        kept = self._shared.kept
        name = ReadThrough.name_of(key)
        return kept.is_absent(name, self._terms) or kept.is_kept(name)

    def _fetch_ahead(self, keys: list[str]) -> None:
        for key in keys:
            task = asyncio.get_running_loop().create_task(self._prefetch(key))
            self._shared.tasks.add(task)
            task.add_done_callback(self._shared.tasks.discard)

    async def _prefetch(self, key: str) -> None:
        neighbours = self._neighbours
        assert neighbours is not None
        fetch, mine = self._shared.kept.begin_fetch(key, ReadThrough.name_of(key))
        if not mine:
            return
        try:
            content = await self._fetch(fetch, Kept(KeptState.UNKNOWN), None, ahead=True)
        except Exception as error:
            neighbours.fetched(key, found=False)
            logger.debug("%r was not fetched ahead: %s", key, error)
            return
        neighbours.fetched(key, found=content is not None)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return parts of many values, in the order asked for."""
        return await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges))

    async def get_ranges(
        self,
        key: str,
        byte_ranges: Sequence[ByteRequest | None],
        *,
        prototype: BufferPrototype,
        max_concurrency: int = 10,
        **limits: int,
    ) -> AsyncIterator[Sequence[tuple[int, Buffer | None]]]:
        """Yield parts of one value with their positions in `byte_ranges`, as newer releases ask.

        Each part is kept by itself. If they were merged into larger requests, as zarr does, another
        window would ask for other merged ones, and find none of them.

        Raises:
            ExceptionGroup: with the failure of a part; FileNotFoundError if the value is absent.
        """
        running = asyncio.Semaphore(max_concurrency)

        async def read(part: ByteRequest | None) -> Buffer:
            async with running:
                found = await self.get(key, prototype, part)
            if found is None:
                raise FileNotFoundError(key)
            return found

        tasks = [asyncio.ensure_future(read(part)) for part in byte_ranges]
        try:
            for number, task in enumerate(tasks):
                yield [(number, await task)]
        except Exception as error:
            raise ExceptionGroup(f"{key!r} cannot be read", [error]) from None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncGenerator[tuple[str, Buffer | None], None]:
        wanted = [*requests]
        found = await asyncio.gather(*(self.get(*request) for request in wanted))
        for (key, *_), value in zip(wanted, found, strict=True):
            yield key, value

    async def exists(self, key: str) -> bool:
        """Return whether the source has `key`; a fresh value that is kept is the answer."""
        found = await self._look_up(key, ReadThrough.name_of(key))
        if found.state is KeptState.FRESH:
            return found.content is not None
        return bool(await self.source.exists(key))

    async def set(self, key: str, value: Buffer) -> None:
        """Write `value` to the source, and keep it."""
        self._check_writable()
        content = content_of(key, value)
        with self._shared.kept.writing(key) as writing:
            await self.source.set(key, value)
            await asyncio.to_thread(self._shared.kept.replace, writing, content, self._terms)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write `value` to the source unless it has the key; what is kept is dropped."""
        self._check_writable()
        with self._shared.kept.writing(key):
            await self.source.set_if_not_exists(key, value)

    async def delete(self, key: str) -> None:
        """Remove `key` from the source and from the tiers."""
        self._check_writable()
        with self._shared.kept.writing(key):
            await self.source.delete(key)

    async def delete_dir(self, prefix: str) -> None:
        """Remove all keys below `prefix` from the source and from the tiers."""
        self._check_writable()
        with self._shared.kept.writing(folder(prefix), is_folder=True):
            await self.source.delete_dir(prefix)

    async def list(self) -> AsyncIterator[str]:
        """Yield all keys of the source; listings are not kept."""
        async for key in self.source.list():
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield the keys of the source that begin with `prefix`."""
        async for key in self.source.list_prefix(prefix):
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names directly below `prefix` at the source."""
        async for name in self.source.list_dir(prefix):
            yield name

    async def getsize(self, key: str) -> int:
        """Return how many bytes the value of `key` has; FileNotFoundError if it is absent."""
        found = await self._look_up(key, ReadThrough.name_of(key))
        if found.state is KeptState.FRESH and found.content is not None:
            return len(found.content)
        return int(await self.source.getsize(key))

    def kept_version(self, key: str) -> str | None:
        """Return the version of the encoded value of `key`, if it may be served without asking.

        It is the same only while the value is. An object that is read in parts has one, too.
        """
        return self._shared.kept.version(key, self._terms)

    def reads(self) -> dict[str, ArrayReads]:
        """Return what was read so far, by the path of the array."""
        with self._shared.lock:
            return {path: ArrayReads(*_values(reads)) for path, reads in self._shared.reads.items()}

    def drop(self, path: str = "") -> None:
        """Drop what is kept of the array or group at `path`; the source is left as it is."""
        for kind in ("whole", "part"):
            self._shared.kept.drop_folder(f"{kind}/{folder(path)}")

    def explain(self, path: str = "") -> str:
        """Return, in sentences, where the chunks of the array at `path` are, and its reads."""
        tiers: dict[str, list[int]] = {}
        for kind in ("whole", "part"):
            for key in self._manager.scan(f"{self.prefix}{kind}/{folder(path)}"):
                found = self._manager.info(key)
                tier = tiers.setdefault(str(found.tier), [0, 0])
                tier[0] += 1
                tier[1] += found.size
        where = ", ".join(
            f"{count} values ({format_size(size)}) in {tier}"
            for tier, (count, size) in tiers.items()
        )
        reads = self.reads().get(path.strip("/"), ArrayReads())
        return (
            f"{path.strip('/') or 'the root'!r} of {self.source}: {where or 'nothing is kept'}. "
            f"{reads.hits} reads were answered from the tiers, and {reads.absent_hits} by knowing "
            f"that a chunk is absent; {reads.requests} requests fetched "
            f"{format_size(reads.fetched_bytes)}, {reads.checks} of them only asked whether a "
            f"value has changed, and {reads.prefetched} fetched ahead."
        )


def _values(reads: ArrayReads) -> tuple[int, ...]:
    return tuple(getattr(reads, name) for name in ArrayReads.__slots__)


def _reopen(source: Store, handle: ManagerHandle, options: dict[str, Any]) -> CachedStore:
    manager = open_handle(handle)
    if is_unopened(manager):
        memory = parse_size(options["worker_memory"], name="worker_memory")
        manager = worker_for(handle.token, memory)
    return CachedStore(source, manager, **options)


def _shared_by(manager: MemoryManager, prefix: str, identity: str, memory: int) -> _Shared:
    """Return what the stores of this process share; writes of one are seen by all."""
    name = (token_of(manager), folder(prefix), identity)
    with _lock:
        shared = _shared.get(name)
        if shared is None:
            kept = shared_read_through(token_of(manager), manager, prefix, identity, memory)
            shared = _shared[name] = _Shared(kept)
            if not kept.writes_here():
                _recent.append(shared)
        return shared


_lock = new_lock()
_shared: weakref.WeakValueDictionary[tuple[str, str, str], _Shared] = weakref.WeakValueDictionary()
# Tasks of dask bring the store along each time, and drop it at their end.
_recent: deque[_Shared] = deque(maxlen=READERS_KEPT)


def _part(byte_range: ByteRequest | None) -> str | None:
    """Return the name of a part of an object."""
    if byte_range is None:
        return None
    if isinstance(byte_range, RangeByteRequest):
        return f"{byte_range.start}-{byte_range.end}"
    if isinstance(byte_range, OffsetByteRequest):
        return f"{byte_range.offset}-"
    if isinstance(byte_range, SuffixByteRequest):
        return f"-{byte_range.suffix}"
    raise InvalidOptionTypeError(
        f"no request of zarr: Unexpected byte_range, got {byte_range!r:.60}"
    )


def _buffer(
    prototype: BufferPrototype, content: bytes | memoryview | None, byte_range: ByteRequest | None
) -> Buffer | None:
    """Return a part of a value as a buffer of zarr."""
    if content is None:
        return None
    if isinstance(byte_range, RangeByteRequest):
        content = memoryview(content)[byte_range.start : byte_range.end]
    elif isinstance(byte_range, OffsetByteRequest):
        content = memoryview(content)[byte_range.offset :]
    elif isinstance(byte_range, SuffixByteRequest):
        content = memoryview(content)[max(len(content) - byte_range.suffix, 0) :]
    return prototype.buffer.from_bytes(content)
