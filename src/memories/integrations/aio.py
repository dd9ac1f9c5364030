"""Managers whose calls are coroutines, for asyncio and trio: the engine and its names are the same.

A hit in RAM and a small store are answered in the event loop: they take less time than handing them
to a thread. Every other call runs in a thread, so that the loop never waits for a disk or a bucket.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from functools import partial, wraps
from inspect import iscoroutinefunction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from anyio import CancelScope, CapacityLimiter, get_cancelled_exc_class, to_thread
from anyio.lowlevel import RunVar

from memories.core.distributed import DistributedMemoryManager as Distributed
from memories.core.manager import MemoryManager as Manager
from memories.core.value_reader import MISSING
from memories.core.views import StoreMapping
from memories.errors import ClosedError, InvalidOptionTypeError
from memories.foundation.fork_lock import new_lock
from memories.foundation.periodic import Latch
from memories.model.tiers import StoreTier
from memories.sharing import SharedMemoryManager as Shared

if TYPE_CHECKING:
    from memories.core.oom import OomGuard

P = ParamSpec("P")
T = TypeVar("T")
THREADS = 16  # Calls of one manager at once, in each event loop; more wait in the loop.
PAGE = 1000  # Keys that a scan fetches at once.
_LOOK_SECONDS = 10.0  # A thread that waits for a call looks whether it has ended.
LOOKS = 64  # Values that `items` and `values` fetch at once.


def in_thread(
    call: Callable[Concatenate[Any, P], T],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """Return the coroutine method that makes `call` in a thread.

    A cancelled caller waits until the call is over, and only then sees the cancellation: what a
    cancelled call was to change is changed, or has failed, and is never under way.
    """
    return _method(call, abandons=False)


def read_in_thread(
    call: Callable[Concatenate[Any, P], T],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """Return the coroutine method of a call that changes nothing: a cancelled caller goes on."""
    return _method(call, abandons=True)


def _method(
    call: Callable[Concatenate[Any, P], T], *, abandons: bool
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    name = call.__name__

    @wraps(call)
    async def method(self: AsyncStore, /, *args: P.args, **kwargs: P.kwargs) -> T:
        made = partial(getattr(self.sync, name), *args, **kwargs)
        return await self._in_thread(made, abandons=abandons)

    return method


class AsyncStore:
    """What the managers and the views of a prefix have in common: values by their keys."""

    _sync: Any = None
    _prefix = ""

    @property
    def sync(self) -> Any:
        """The same without coroutines, for the threads of the program.

        Raises:
            ClosedError: the manager has not been opened.
        """
        if self._sync is None:
            raise ClosedError(
                f"this {type(self).__name__} is not open: use `async with`, or `await it.open()`"
            )
        return self._sync

    async def _in_thread(self, call: Callable[[], T], *, abandons: bool) -> T:
        raise NotImplementedError

    async def retrieve(self, key: str, default: Any = MISSING, **options: Any) -> Any:
        """Return the value of `key`, with the options of `MemoryManager.retrieve`.

        Raises:
            KeyNotFoundError: `key` is in no tier and no default was given.
        """
        call = partial(self.sync.retrieve, key, default, **options)
        return await self._in_thread(call, abandons=True)

    async def store(self, key: str, data: Any, tier: StoreTier = "auto", **options: Any) -> None:
        """Store `data` under `key`, with the options of `MemoryManager.store`."""
        await self._in_thread(partial(self.sync.store, key, data, tier, **options), abandons=False)

    async def get(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`, or `default` if it is absent."""
        return await self.retrieve(key, default)

    def __getitem__(self, key: str) -> Awaitable[Any]:
        return self.retrieve(key)

    async def delete(self, key: str) -> None:
        """Remove `key` from every tier; KeyNotFoundError if it is in none."""
        await self._in_thread(partial(self.sync.delete, key), abandons=False)

    async def exists(self, key: str) -> bool:
        """Return whether `key` is in any tier; does not count as a read."""
        return bool(await self._in_thread(partial(self.sync.exists, key), abandons=True))

    info = read_in_thread(Manager.info)
    store_many = in_thread(Manager.store_many)
    retrieve_many = read_in_thread(Manager.retrieve_many)
    delete_many = in_thread(Manager.delete_many)
    copy = in_thread(Manager.copy)
    rename = in_thread(Manager.rename)
    pop = in_thread(Manager.pop)
    popitem = in_thread(Manager.popitem)
    setdefault = in_thread(Manager.setdefault)
    clear = in_thread(Manager.clear)

    async def update(self, other: Any = (), /, **kwds: Any) -> None:
        """Store all of a mapping, or of pairs."""
        await self._in_thread(partial(self.sync.update, other, **kwds), abandons=False)

    async def count(self) -> int:
        """Return the number of keys: what `len()` is, which cannot be awaited."""
        return await self._in_thread(partial(len, self.sync), abandons=True)

    async def scan(self, prefix: str = "", delimiter: str | None = None) -> AsyncIterator[str]:
        """Yield the keys that start with `prefix`, in order; see `MemoryManager.scan`."""
        keys = self.sync.scan(prefix, *([] if delimiter is None else [delimiter]))
        async for page in self._pages(keys, PAGE):
            for key in page:
                yield key

    async def _pages(self, keys: Iterator[str], most: int) -> AsyncIterator[list[str]]:
        """Yield lists of the next keys, each fetched in a thread."""
        while page := await self._in_thread(lambda: list(islice(keys, most)), abandons=False):
            yield page

    def __aiter__(self) -> AsyncIterator[str]:
        return self.scan()

    def keys(self) -> AsyncIterator[str]:
        """Yield all keys, in order."""
        return self.scan()

    async def items(self) -> AsyncIterator[tuple[str, Any]]:
        """Yield all keys with their values; keys that are removed meanwhile are left out."""
        async for page in self._pages(self.sync.scan(), LOOKS):
            for item in (await self.retrieve_many(page)).items():
                yield item

    async def values(self) -> AsyncIterator[Any]:
        """Yield all values, in the order of their keys."""
        async for _, value in self.items():
            yield value


class AsyncView(AsyncStore):
    """Some values of a manager as a store of its own; its calls use the threads of the manager."""

    def __init__(self, manager: _Opened, sync: Any) -> None:
        self._manager = manager
        self._sync = sync

    async def _in_thread(self, call: Callable[[], T], *, abandons: bool) -> T:
        return await self._manager._in_thread(call, abandons=abandons)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._sync!r}>"


class AsyncPrefixView(AsyncView):
    """The keys of a manager that start with a prefix, by their names without it."""

    @property
    def name(self) -> str:
        """The prefix."""
        return str(self.sync.name)

    def prefix(self, prefix: str) -> AsyncPrefixView:
        """Return a view of the keys below a further prefix."""
        return AsyncPrefixView(self._manager, self.sync.prefix(prefix))

    async def retrieve(self, key: str, default: Any = MISSING, **options: Any) -> Any:
        """Return the value of a key; see `MemoryManager.retrieve`."""
        return await self._manager.retrieve(self.name + key, default, **options)


class _WholeCall:
    """A call for a thread, which is made from its begin to its end or not at all."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._lock = new_lock()
        self._is_begun = False
        self._ended = Latch()

    def __call__(self) -> Any:
        """Make the call, unless the caller knows already that it was not made."""
        with self._lock:
            if self._ended.is_set():
                return None
            self._is_begun = True
        try:
            return self._call()
        finally:
            self._ended.set()

    def is_over(self) -> bool:
        """Return whether the call has ended; one that has not begun never begins after this."""
        with self._lock:
            if not self._is_begun:
                self._ended.set()
        return self._ended.is_set()

    def wait(self) -> None:
        """Wait until the call has ended."""
        while not self._ended.wait(_LOOK_SECONDS):
            pass


class _Opened(AsyncStore):
    """A manager: it is opened and closed, and has threads."""

    _kind: type[StoreMapping]

    def __init__(self, *args: Any, **options: Any) -> None:
        self._arguments = (args, options)
        self._opening = new_lock()
        self._limiter: RunVar[CapacityLimiter] = RunVar(f"memories.aio {id(self)}")

    @classmethod
    def over(cls, manager: Any) -> Self:
        """Return the coroutines of a manager that is open already.

        Both may be used at once: by event loops, and by the threads of the program.

        Raises:
            InvalidOptionTypeError: it is not a manager of this kind.
        """
        if not isinstance(manager, cls._kind):
            raise InvalidOptionTypeError(
                f"manager={manager!r:.60} must be a {cls._kind.__name__}, "
                f"not a {type(manager).__name__}"
            )
        made = cls()
        made._sync = manager
        return made

    async def open(self) -> Self:
        """Open the manager, in a thread; does nothing if it is open.

        Raises:
            MemoriesError: what the constructor without coroutines raises.
        """
        if self._sync is None:
            await self._in_thread(self._open, abandons=False)
        return self

    def _open(self) -> None:
        with self._opening:  # Two tasks may open it at once.
            if self._sync is None:
                args, options = self._arguments
                self._sync = self._kind(*args, **options)

    async def close(self, *, flush: bool = True) -> None:
        """Write what is only in RAM and close the manager; a cancelled task does so, too."""
        if self._sync is not None:
            await self._end(partial(self._sync.cleanup, flush=flush))

    async def cleanup(self, *, flush: bool = True) -> None:
        """Do the same as `close`."""
        await self.close(flush=flush)

    async def _end(self, call: Callable[[], object]) -> None:
        with CancelScope(shield=True):
            await self._in_thread(call, abandons=False)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._end(partial(self.sync.__exit__, kind, error, traceback))

    @property
    def closed(self) -> bool:
        """Whether it is closed, or was never opened."""
        return self._sync is None or bool(self._sync.closed)

    @property
    def path(self) -> Path | None:
        """The directory of the store."""
        path: Path | None = self.sync.path
        return path

    def cache(self, *args: Any, **options: Any) -> Any:
        """Decorate a function or a coroutine function; see `MemoryManager.cache`.

        The manager must be open; `memories.aio.cached` decorates for one that is opened later. A
        decorated coroutine function needs asyncio, not trio.
        """
        return self.sync.cache(*args, **options)

    async def modify(self, key: str, fn: Callable[[Any], T]) -> T:
        """Replace the value of `key` by `fn(value)`, atomically; `fn` runs in a thread.

        Raises:
            KeyNotFoundError: the key is absent.
            InvalidOptionTypeError: `fn` is a coroutine function.
        """
        if iscoroutinefunction(fn):
            raise InvalidOptionTypeError(
                f"fn={fn!r:.60} must be a plain function: it runs while the key is locked"
            )
        return await self._in_thread(partial(self.sync.modify, key, fn), abandons=False)

    get_tier = read_in_thread(Manager.get_tier)
    touch = in_thread(Manager.touch)
    set_terms = in_thread(Manager.set_terms)
    migrate = in_thread(Manager.migrate)
    pin = in_thread(Manager.pin)
    unpin = in_thread(Manager.unpin)
    delete_prefix = in_thread(Manager.delete_prefix)
    flush = in_thread(Manager.flush)
    resize = in_thread(Manager.resize)

    async def find(self, **metadata: Any) -> AsyncIterator[str]:
        """Yield the keys whose metadata has these values; see `MemoryManager.find`."""
        async for page in self._pages(self.sync.find(**metadata), PAGE):
            for key in page:
                yield key

    async def _in_thread(self, call: Callable[[], T], *, abandons: bool) -> T:
        try:
            limiter = self._limiter.get()
        except LookupError:  # Each event loop has one of its own.
            limiter = CapacityLimiter(THREADS)
            self._limiter.set(limiter)
        if abandons:
            return await to_thread.run_sync(call, abandon_on_cancel=True, limiter=limiter)
        whole, cancelled = _WholeCall(call), get_cancelled_exc_class()
        try:
            return await to_thread.run_sync(whole, limiter=limiter)
        except cancelled:
            # anyio waits for the thread where one of its scopes was cancelled. `Task.cancel`, and
            # with it `asyncio.timeout` and `wait_for`, ends the wait at once.
            while not whole.is_over():
                with suppress(cancelled), CancelScope(shield=True):
                    await to_thread.run_sync(whole.wait)
            raise

    def __repr__(self) -> str:
        what = "not open" if self._sync is None else repr(self._sync)
        return f"<{type(self).__name__} of {what}>"


class AsyncSharedMemoryManager(_Opened):
    """`memories.SharedMemoryManager` with coroutines: a store that several processes write.

    Args:
        args: Arguments of `memories.SharedMemoryManager`.
        options: Its options.
    """

    _kind = Shared

    @property
    def is_writer(self) -> bool:
        """Whether this process has the store open, and answers the others."""
        return bool(self.sync.is_writer)


class AsyncMemoryManager(_Opened):
    """`memories.MemoryManager` with coroutines.

        async with aio.MemoryManager(storage_path="store") as manager:
            await manager.store("a", array)
            array = await manager["a"]

    It is opened by `async with` or by `await manager.open()`. Any number of tasks and event loops
    may use it at once, in one thread or in several.

    Args:
        args: Arguments of `memories.MemoryManager`.
        options: Its options.
    """

    _kind: type[StoreMapping] = Manager

    async def retrieve(self, key: str, default: Any = MISSING, **options: Any) -> Any:
        """Return the value of `key`, with the options of `MemoryManager.retrieve`.

        What RAM holds is returned at once, without a turn of the event loop.

        Raises:
            KeyNotFoundError: `key` is in no tier and no default was given.
        """
        if not options:
            value = self.sync._retrieve_now(key)
            if value is not MISSING:
                return value
        return await super().retrieve(key, default, **options)

    async def store(self, key: str, data: Any, tier: StoreTier = "auto", **options: Any) -> None:
        """Store `data` under `key`, with the options of `MemoryManager.store`.

        Up to 64 KB of bytes, text or an array are stored at once where RAM has room.
        """
        if options or not self.sync._store_now(key, data, tier):
            await super().store(key, data, tier, **options)

    async def delete(self, key: str) -> None:
        """Remove `key` from every tier; KeyNotFoundError if it is in none."""
        if not self.sync._delete_now(key):
            await super().delete(key)

    async def exists(self, key: str) -> bool:
        """Return whether `key` is in any tier; does not count as a read."""
        return self.sync._exists_now(key) or await super().exists(key)

    def prefix(self, prefix: str) -> AsyncPrefixView:
        """Return a view of the keys that start with `prefix`, by their names without it."""
        return AsyncPrefixView(self, self.sync.prefix(prefix))

    @property
    def read_only(self) -> bool:
        """Whether it can change nothing."""
        return bool(self.sync.read_only)

    def oom_guard(self, reserve: float | int | str = 0) -> OomGuard:
        """Return what catches a full GPU memory; see `MemoryManager.oom_guard`."""
        guard: OomGuard = self.sync.oom_guard(reserve)
        return guard

    explain = read_in_thread(Manager.explain)
    promote = in_thread(Manager.promote)
    rotate_key = in_thread(Manager.rotate_key)
    demote = in_thread(Manager.demote)
    prefetch = in_thread(Manager.prefetch)
    get_memory_usage = read_in_thread(Manager.get_memory_usage)
    stats = read_in_thread(Manager.stats)
    advise = read_in_thread(Manager.advise)
    check = read_in_thread(Manager.check)
    victim = in_thread(Manager.victim)
    evict_one = in_thread(Manager.evict_one)
    record_trace = in_thread(Manager.record_trace)
    create_snapshot = in_thread(Manager.create_snapshot)
    restore_snapshot = in_thread(Manager.restore_snapshot)
    snapshots_in_archive = read_in_thread(Manager.snapshots_in_archive)
    release_snapshot = in_thread(Manager.release_snapshot)
    enable_analytics = in_thread(Manager.enable_analytics)
    get_analytics = read_in_thread(Manager.get_analytics)
    plot_analytics = in_thread(Manager.plot_analytics)
    telemetry = read_in_thread(Manager.telemetry)
    report = in_thread(Manager.report)
    dashboard = in_thread(Manager.dashboard)


class AsyncDistributedMemoryManager(AsyncMemoryManager):
    """`memories.DistributedMemoryManager` with coroutines.

    Args:
        args: Arguments of `memories.DistributedMemoryManager`.
        options: Its options, `nodes` among them.
    """

    _kind = Distributed

    @property
    def distributed(self) -> AsyncView:
        """The values on the nodes: `await manager.distributed["key"]`."""
        return AsyncView(self, self.sync.distributed)

    async def scan_distributed(self, prefix: str = "") -> AsyncIterator[str]:
        """Yield the keys on the nodes that start with `prefix`, in order."""
        async for key in self.distributed.scan(prefix):
            yield key

    store_distributed = in_thread(Distributed.store_distributed)
    retrieve_distributed = read_in_thread(Distributed.retrieve_distributed)
    version_distributed = read_in_thread(Distributed.version_distributed)
    delete_distributed = in_thread(Distributed.delete_distributed)
    exists_distributed = read_in_thread(Distributed.exists_distributed)
    info_distributed = read_in_thread(Distributed.info_distributed)
    store_many_distributed = in_thread(Distributed.store_many_distributed)
    retrieve_many_distributed = read_in_thread(Distributed.retrieve_many_distributed)
    delete_many_distributed = in_thread(Distributed.delete_many_distributed)
    clear_distributed = in_thread(Distributed.clear_distributed)
    get_node_status = read_in_thread(Distributed.get_node_status)
    repair = in_thread(Distributed.repair)
    add_node = in_thread(Distributed.add_node)
    remove_node = in_thread(Distributed.remove_node)
    replace_node = in_thread(Distributed.replace_node)
    abandon_change = in_thread(Distributed.abandon_change)
