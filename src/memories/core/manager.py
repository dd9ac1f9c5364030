"""The public class `MemoryManager`: checks arguments and calls the service that does the work.

Its base class has the reads, which can be compiled. Longer than 600 lines because the class is the
public interface: most lines are signatures and docstrings.
"""

from __future__ import annotations

import os
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    KeysView,
    Mapping,
    Sequence,
)
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar, overload

from memories.core.key_calls import KeyCalls
from memories.core.pickled_reader import open_reader
from memories.core.short_ways import ShortWays
from memories.core.value_reader import MISSING
from memories.core.views import KeyView, StoreMapping
from memories.engine.lifecycle_state import LifecycleState
from memories.errors import InvalidOptionError, KeyNotFoundError
from memories.foundation.keys import check_key
from memories.foundation.units import parse_size
from memories.foundation.wrong_calls import explain_calls
from memories.model.rules import Rule
from memories.model.tiers import StoreTier, TierChoice, TierName
from memories.options.choices import (
    Compression,
    Durability,
    DurableText,
    MemoryText,
    OnFull,
    Prefetch,
)
from memories.options.configured_constructor import configured
from memories.options.migration import MigrationSettings
from memories.options.settings import (
    check_flag,
    check_items,
    check_seconds,
    check_several,
    check_size,
    check_tier,
    make_settings,
)
from memories.progress import ProgressChoice, chosen
from memories.sealing.master_key import EncryptionKey

if TYPE_CHECKING:
    from memories.backends.base import Problem
    from memories.core.advise import Advice
    from memories.core.cached_function import CacheDecorator, CachedFunction
    from memories.core.lifecycle import Lifecycle
    from memories.core.oom import OomGuard
    from memories.core.result_store import TierResultStore
    from memories.core.trace_recorder import TraceRecorder
    from memories.core.worker_results import WorkerResults
    from memories.devices import Device
    from memories.observe.analytics import Series
    from memories.observe.analytics.state_document import Document
    from memories.observe.counters import Stats
    from memories.observe.dashboard import Dashboard
    from memories.policies import PolicyChoice
    from memories.sealing.key_files import KeyRotation


P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
MOST_COMPLETIONS = 1000


@explain_calls(hide_base=True)
class MemoryManager(ShortWays, KeyCalls, StoreMapping):
    """Keeps Python data in four tiers behind one `store` and one `retrieve`.

    It is also a `MutableMapping[str, Any]` and a context manager, and may be used from any number
    of threads. A process may have several managers. In the process that unpickles it, a manager
    with a `storage_path` is a reader of what is on the disk. `MEMORIES_*` variables, the project's
    `memories.toml` and the user's `config.toml` set the arguments that a call leaves out.

    Args:
        hot_memory_size: Capacity of the hot tier, in GB (10**9 bytes) or a string like `"512MiB"`,
            `"25%"` or `"auto"`: a share of the RAM that the process may use.
        warm_memory_size: Capacity of the warm tier (RAM).
        cold_memory_size: Capacity of the cold tier (local disk); shares are those of the disk.
        glacier_memory_enabled: Whether there is a fourth tier, off the machine.
        storage_path: Directory of the cold tier and the catalog. None is a private temporary
            directory, removed by `cleanup()`; where /tmp is in RAM, and `TMPDIR` is not set, it is
            in /var/tmp.
        glacier_url: The location of glacier: `"s3://bucket/prefix"`, `"gs://"`, `"az://"`,
            `"file:///..."` or a path. None is a directory beside the cold tier.
        storage_options: Credentials, endpoint and so on, under the names that fsspec and obstore
            use. Never logged.
        hot_device: `"auto"` for the GPU if torch or CuPy is loaded and finds one, `"cuda:0"`, or
            `"cpu"`. Without a GPU the hot tier is host RAM of the same capacity, and `repr`,
            `stats()` and one INFO log line say so.
        eviction_policy: The name of a policy, or one each for `{"hot": ..., "warm": ...}`.
        compression: `{"cold": ..., "glacier": ...}`: a codec's name and level, `"none"`, or
            `"auto"`: where it saves half, or more time of the medium than it takes.
        durability: `"relaxed"` (a power cut loses at most the last second of stores) or `"full"`
            (a store that has returned is never lost).
        exit_flush_seconds: With a `storage_path`, how long values that are only in RAM may take to
            be written where `cleanup()` was not called: at a normal exit of the interpreter, or
            when the manager is garbage-collected. SIGTERM, `os._exit` and kill write nothing.
        write_through: Whether every store also writes a durable copy before it returns.
        on_full: `"raise"` a `TierFullError` when the last tier is full, or `"evict"`.
        migration: `MigrationSettings`, `False` for none, None for the defaults.
        prefetch: `"auto"` reads ahead what three predictors expect, `"successor"`, `"stride"` or
            `"pattern"` what this predictor expects, `"off"` only what `prefetch(keys)` names.
        rules: Options for all keys with a prefix: `Rule(prefix="archive/", move_to="glacier",
            after="30 days")`.
        read_only: Open an existing store beside its writer, or the archive at `glacier_url` from
            any machine, and change nothing.
        takeover: Become the writer of the archive although another store seems to be its writer, or
            although the archive was emptied. The previous writer can write no more.
        trusted_keys: Keys of others (`memories key export`) whose pickled objects may be read here.
        encryption: Where the key is that encrypts the disk, the archive, and values on nodes:
            `"file:PATH"`, `"env:NAME"`, or an `EncryptionKey`. A store is encrypted from its first
            byte on, or never.

    Raises:
        InvalidOptionError: An option is invalid.
        EncryptionKeyError: The store is encrypted and this is not its key, or it is not encrypted.
        StorageError: The directory cannot be used.
        StoreLockedError: Another process is the writer of this store, or this process has opened it
            with other options. With the same options both managers are one: they share all values,
            and `cleanup()` of one closes both.
    """

    _temporary_in: Path | None = None  # Where it makes its directory if it has no path.
    _can_share = True  # A second manager of an open store shares what the first one has.

    @configured
    def __init__(
        self,
        hot_memory_size: float | str = 8,
        warm_memory_size: float | str = 32,
        cold_memory_size: float | str = 500,
        glacier_memory_enabled: bool = False,
        *,
        storage_path: str | os.PathLike[str] | None = None,
        glacier_url: str | os.PathLike[str] | None = None,
        storage_options: Mapping[str, Any] | None = None,
        hot_device: str | Device = "auto",
        eviction_policy: PolicyChoice | Mapping[MemoryText, PolicyChoice] = "auto",
        compression: Mapping[DurableText, Compression] | None = None,
        durability: Durability = "relaxed",
        exit_flush_seconds: float = 30.0,
        write_through: bool = False,
        on_full: OnFull = "raise",
        migration: MigrationSettings | Literal[False] | None = None,
        prefetch: Prefetch = "auto",
        rules: Iterable[Rule] = (),
        read_only: bool = False,
        takeover: bool = False,
        trusted_keys: Iterable[str] = (),
        encryption: str | EncryptionKey | None = None,
    ) -> None:
        settings = make_settings(
            hot_memory_size,
            warm_memory_size,
            cold_memory_size,
            glacier_memory_enabled,
            storage_path=storage_path,
            glacier_url=glacier_url,
            storage_options=storage_options,
            hot_device=hot_device,
            eviction_policy=eviction_policy,
            compression=compression,
            durability=durability,
            exit_flush_seconds=exit_flush_seconds,
            write_through=write_through,
            on_full=on_full,
            prefetch=prefetch,
            rules=rules,
            read_only=read_only,
            takeover=takeover,
            trusted_keys=trusted_keys,
            temporary_in=self._temporary_in,
            encryption=encryption,
        )
        # Imported at use, like all that only a manager needs: many programs import the class, and
        # make none.
        from memories.core.open_stores import find_open_store
        from memories.core.wiring import assemble

        shared = find_open_store(settings, migration, type(self))
        self._attach(assemble(settings, migration) if shared is None else shared.lifecycle)
        self._lifecycle.end_with(self)

    def _attach(self, lifecycle: Lifecycle) -> None:
        """Use the services of `lifecycle`."""
        self._lifecycle = lifecycle
        self._services = services = lifecycle.services
        self._hierarchy = services.hierarchy
        from memories.core.reports import Reports
        from memories.core.value_reader import ValueReader
        from memories.core.value_writer import ValueWriter

        reader = ValueReader(services.hierarchy, services.device)
        self._attach_ways(services.hierarchy, reader, ValueWriter(services, reader))

        self._reports = Reports(lifecycle)
        self._worker_results: WorkerResults | None = None  # Made for the first cached function.

    @overload
    def cache(
        self,
        function: Callable[P, R],
        *,
        version: int | str | None = None,
        ignore: Iterable[str] = (),
        key: Callable[..., Any] | None = None,
        ttl: float | None = None,
        tier: StoreTier = "auto",
    ) -> CachedFunction[P, R]: ...
    @overload
    def cache(
        self,
        function: None = None,
        *,
        version: int | str | None = None,
        ignore: Iterable[str] = (),
        key: Callable[..., Any] | None = None,
        ttl: float | None = None,
        tier: StoreTier = "auto",
    ) -> CacheDecorator: ...
    def cache(
        self,
        function: Callable[..., Any] | None = None,
        *,
        version: int | str | None = None,
        ignore: Iterable[str] = (),
        key: Callable[..., Any] | None = None,
        ttl: float | None = None,
        tier: StoreTier = "auto",
    ) -> Any:
        """Decorate a function so that its results are kept in the tiers; bare or with options.

        Results are evictable: under memory pressure they may be dropped, and are computed again.
        One of 64 KiB or more that took less time to compute than it takes to write it to the disk
        and to read it once stays in RAM; `explain` says so.
        The first call returns the same as later ones: a read-only array, for example. Exceptions
        are not kept. Threads or tasks that ask for the same result share one computation; if the
        computing one is interrupted, another continues. The decorated function has `cache_info()`,
        `cache_clear()` and `cache_key(...)`.

        A result belongs to one function and its arguments. A function is identified by its file,
        qualified name and code, by its defaults and closure, and by what it reads and calls in its
        own module; an argument by type and content. Raise `version` when something else changes,
        for example in an imported module.

        Args:
            function: Anything that can be called and returns what can be stored: a function, a
                method, a coroutine function, a `partial`, a compiled function.
            version: Raise it when the function gives other results than before. Its code, what it
                calls and the globals that it reads are then ignored: results survive edits.
            ignore: Names of parameters, or of variables that the function or what it calls reads,
                that do not change the result.
            key: A function of the arguments whose value is hashed in their place.
            ttl: Seconds for which a result is valid.
            tier: Where results are stored first. `"auto"` is the fastest with room, and with a
                `storage_path` a durable copy as well, written in the background where that pays.

        Raises:
            InvalidOptionError: an option is invalid.
            UnsupportedTypeError: this is not a function, or a generator. Calls raise it where
                an argument, or a value that the function reads or closes over, has no hash.
        """
        from memories.core.memoize import memoize

        decorate = partial(
            memoize, self._results(), version=version, ignore=ignore, key=key, ttl=ttl, tier=tier
        )
        return decorate if function is None else decorate(function)

    def _results(self) -> TierResultStore:
        """Return what keeps the results of decorated functions."""
        from memories.core.result_store import TierResultStore
        from memories.core.worker_results import WorkerResults

        if self._worker_results is None:
            self._worker_results = WorkerResults(
                self._hierarchy, partial(self._writer.put_result, of_worker=True), self._lifecycle
            )
        return TierResultStore(self, self._writer, self._hierarchy, self._worker_results)

    def store_many(self, mapping: Mapping[str, Any], tier: StoreTier = "auto") -> None:
        """Store all of `mapping`, in cold together.

        Those before one that fails are stored: a note of the error says how many, and which failed.
        """
        self._writer.store_many(check_items("mapping", mapping), tier, self.store)

    def retrieve_many(self, keys: Iterable[str], *, timeout: float | None = None) -> dict[str, Any]:
        """Return the values of `keys`, by key; raises like `retrieve` if one is absent.

        Values in a bucket are requested together, small ones on the disk are read together.
        """
        wanted = [check_key(key) for key in check_several("keys", keys)]
        return self._reader.read_many(wanted, check_seconds("timeout", timeout))

    def modify(self, key: str, fn: Callable[[Any], T]) -> T:
        """Replace the value of `key` by `fn(value)`, atomically for this key, and return it.

        `fn` gets a private writable copy. The new version stays in the tier of the old one.
        """
        return self._writer.modify(check_key(key), fn)

    def __len__(self) -> int:
        self._hierarchy.require_readable()
        return len(self._hierarchy)

    def _ipython_key_completions_(self) -> list[str]:
        """Return keys for `manager["...` and the Tab key; of a large store only the first ones."""
        return [] if self._lifecycle.closed else list(islice(self.scan(), MOST_COMPLETIONS))

    def keys(self) -> KeysView[str]:
        """Return a view of the keys."""
        return KeyView(self, self._hierarchy.expiry.record_listing)

    def update(self, other: Any = (), /, **kwds: Any) -> None:
        """Store every item of a mapping or of an iterable of pairs, and every named argument."""
        super().update(other.items() if isinstance(other, MemoryManager) else other, **kwds)

    def popitem(self) -> tuple[str, Any]:
        """Remove the first key and return it with its value; KeyNotFoundError if there is none."""
        for key in self.scan():
            try:
                return key, self.pop(key)
            except KeyNotFoundError:
                continue  # Removed since it was listed.
        raise KeyNotFoundError("nothing is stored")

    def pop(self, key: str, default: Any = MISSING) -> Any:
        """Remove `key` and return its value, atomically for this key."""
        return self._writer.pop(check_key(key), default)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`, storing `default` first if it is absent, atomically."""
        return self._writer.setdefault(check_key(key), default)

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def prefetch(self, keys: Iterable[str]) -> int:
        """Move `keys` to warm in the background, and return how many will be moved.

        Keys that are in RAM already, are absent, or may not be in warm are left out, and so is
        what exceeds half of warm: call again after some were read.
        """
        self._hierarchy.require_writable()
        wanted = [check_key(key) for key in check_several("keys", keys)]
        prefetching = self._services.prefetching
        return 0 if prefetching is None else prefetching.request(wanted)

    def get_memory_usage(self) -> dict[str, float]:
        """Return how full each tier is, in percent of its configured size (0 when disabled)."""
        self._hierarchy.require_readable()
        from memories.core.explain import usage_percent

        return usage_percent(self._hierarchy)

    def stats(self) -> Stats:
        """Return counters and sizes of every tier, as of now."""
        return self._services.telemetry.stats()

    def advise(self, more: float | str = 1) -> Advice:
        """Return the estimated gain, in hit rate and time, of `more` room (in GB) in each tier."""
        from memories.core.advise import advise

        stats = self.stats()
        curve = self._services.access_sampler.curve(stats.reads - stats.misses)
        return advise(curve, stats, parse_size(more, name="more"))

    def record_trace(
        self,
        path: str | os.PathLike[str],
        *,
        share: float = 1.0,
        max_bytes: float | str = 1,
    ) -> TraceRecorder:
        """Record all stores and reads from now on, as a trace for `memories simulate`.

        A line holds the time, the key and the size of an access. Recording ends with `stop()` of
        the returned object, or at the end of a `with` statement around it.

        Args:
            path: A file whose name ends in `.jsonl`; an existing one is replaced.
            share: The share of the keys that is recorded, each with all of its accesses.
            max_bytes: The size of the file, in GB or like `"10 MB"`, at which recording ends.
        """
        self._hierarchy.require_readable()
        from memories.core.trace_recorder import TraceRecorder

        recorder = TraceRecorder(self._services, path, share=share, max_bytes=max_bytes)
        self._lifecycle.start_recording(recorder)
        return recorder

    def create_snapshot(
        self,
        path: str | os.PathLike[str],
        *,
        tiers: Iterable[TierChoice] | None = None,
        prefix: str = "",
        base: str | os.PathLike[str] | None = None,
        include_glacier: bool | Literal["reference"] = True,
        portable: bool = False,
        progress: ProgressChoice = None,
    ) -> None:
        """Write every key, as of this instant, into one file at `path`; writers may continue.

        Other tools open the file: `numpy.load(path)["key"]` gives an uncompressed array of 4 KiB or
        more. The file of an encrypted store is encrypted, and only managers with its key open it.

        Args:
            path: The file; an existing one is replaced at the very end, or not at all.
            tiers: Write only values in these tiers.
            prefix: Write only keys that start with this.
            base: An earlier snapshot: only changes since then are written, the rest is linked.
            include_glacier: False leaves archived values out; `"reference"` refers to them, and
                prevents that they are unlinked.
            portable: Decompress everything, so that other tools can read all arrays.
            progress: Called with the bytes written so far, and the approximate total; or
                True for a bar, or tqdm.

        Raises:
            StorageError: the file cannot be written; an existing file at `path` stays.
            CorruptDataError: a value at rest is damaged; the message names its key.
        """
        self._hierarchy.require_readable()
        # Imported at its first use, like every service that most programs do not use.
        from memories.snapshot.api import create_snapshot

        self._hierarchy.operations.run(
            create_snapshot,
            self._hierarchy,
            path,
            tiers=tiers,
            prefix=prefix,
            base=base,
            include_glacier=include_glacier,
            portable=portable,
            key=self._services.settings.encryption,
            progress=chosen(progress, "create_snapshot"),
        )

    def restore_snapshot(
        self,
        path: str | os.PathLike[str],
        *,
        mode: Literal["replace", "merge", "keep"] = "replace",
        verify: Literal["full", "lazy"] = "full",
        wait: bool = False,
        bases: Sequence[str | os.PathLike[str]] = (),
        progress: ProgressChoice = None,
    ) -> None:
        """Restore the values of the snapshot at `path`.

        Values return to the tiers they had: a few hundred before this returns if the file was
        verified, the others in the background; until then they are read from the file. Values of
        1 MB and more are mapped instead of copied. The file may be deleted or replaced at once,
        but no program may write into it.

        Args:
            path: The snapshot.
            mode: `"replace"` removes all other keys, `"merge"` only overwrites, `"keep"` only adds.
            verify: `"full"` reads and checks the whole file before anything is changed; `"lazy"`
                checks structure and manifest, and each value at its first use. A file on another
                file system is then copied in the background, and volatile until that ends.
            wait: Return only when every value is in the tier it had.
            bases: The paths of the earlier snapshots of an incremental one, if they were moved.
            progress: Called with the bytes verified so far, and the total; or
                True for a bar, or tqdm.

        Raises:
            StorageError: the file, or an earlier snapshot that it needs, is missing.
            CorruptDataError: a file is damaged or not a snapshot; nothing has changed.
            TierFullError: there is no room for the values; nothing has changed.
        """
        self._hierarchy.require_writable()
        if self._lifecycle.tier_restore is not None:
            self._lifecycle.tier_restore.stop()
        from memories.snapshot.api import restore_snapshot

        self._lifecycle.tier_restore = self._hierarchy.operations.run(
            restore_snapshot,
            self._hierarchy,
            path,
            mode=mode,
            verify=verify,
            wait=wait,
            bases=bases,
            key=self._services.settings.encryption,
            progress=chosen(progress, "restore_snapshot"),
        )

    def snapshots_in_archive(self) -> dict[str, int]:
        """Return the ids of snapshots that refer to archived objects, and how many objects."""
        self._hierarchy.require_readable()
        from memories.snapshot.archive_references import referring

        return referring(self._hierarchy)

    def release_snapshot(self, identity: str) -> int:
        """Release the archived objects of a snapshot whose file was deleted; return their number.

        Objects that no key refers to either are unlinked after their grace time.

        Raises:
            InvalidOptionError: no snapshot of that id refers to objects here.
        """
        self._hierarchy.require_writable()
        from memories.snapshot.archive_references import release

        return self._hierarchy.operations.run(release, self._hierarchy, identity)

    def oom_guard(self, reserve: float | int | str = 0) -> OomGuard:
        """Move values out of the hot tier when your own work runs out of device memory.

        As a decorator (`@manager.oom_guard()`) it makes room and runs the function again. As a
        context it makes `reserve` of room first; an out-of-memory error passes through, with a
        note that the same work will fit now (CuPy's allocations are retried automatically).
        Without a device it does nothing.

        Args:
            reserve: Room to make beforehand: gigabytes, or a string such as `"512MiB"`.
        """
        reserve_bytes = parse_size(reserve, name="reserve")
        self._hierarchy.require_readable()
        budget = self._hierarchy.tiers[TierName.HOT].budget
        from memories.core.oom import OomGuard

        return OomGuard(self._services.device, lambda: budget.used, reserve_bytes)

    def clear(self, *, purge: bool = False) -> None:
        """Remove every key.

        Archived objects are unlinked after their grace time (7 days), or at once with `purge`.
        """
        self._writer.clear(purge=purge)

    def flush(self) -> None:
        """Write a durable copy of every value, and return once all are on the disk."""
        self._lifecycle.flush()

    def check(
        self,
        repair: bool = False,
        *,
        dry_run: bool = False,
        progress: ProgressChoice = None,
    ) -> list[Problem]:
        """Verify all values in durable tiers, and return the problems found.

        Archived values are read as well: all of them are downloaded. Values that could not be
        read are `unchecked`. With `repair`, damaged values are dropped, the index is rebuilt, and
        each problem says whether a value was lost. Removed data is moved to `lost+found` beside
        the store, with a report. Missing and unreadable files are reported and left as they are.

        Args:
            repair: Repair what can be repaired.
            dry_run: With `repair`, only describe the repair, as the `remedy` of each problem.
            progress: Called with the bytes verified so far, and the total; or
                True for a bar, or tqdm.

        Raises:
            StorageError: the directory of the store is missing.
        """
        from memories.core.store_check import check_store

        return check_store(
            self._services, repair=repair, dry_run=dry_run, progress=chosen(progress, "check")
        )

    def cleanup(self, *, flush: bool = True) -> None:
        """Close the manager. Idempotent.

        With a `storage_path`, hot and warm values are written to cold first, and are there when
        it is opened again; a private directory is removed. When this returns or raises, every
        file, thread and connection is closed, unless the error says that the manager stays open.
        Where the body of a `with` statement raises, a failure here becomes a note of that error.

        Args:
            flush: False discards values that are only in RAM.

        Raises:
            TierFullError: the values in RAM do not fit on the disk; the manager stays open. Make
                room and call again, or discard them with `flush=False`.
            MemoriesError: the values that it names could not be saved; everything is closed.
        """
        self._lifecycle.close(flush=check_flag("flush", flush))

    def close(self, *, flush: bool = True) -> None:
        """Close the manager, as `cleanup` does."""
        self.cleanup(flush=flush)

    @property
    def closed(self) -> bool:
        """Whether the manager was closed."""
        return self._lifecycle.closed

    @property
    def path(self) -> Path | None:
        """The directory of the store; None for one that ends with the manager."""
        return self._services.settings.storage_path

    @property
    def read_only(self) -> bool:
        """Whether nothing can be stored: it was opened so, or by the parent of a forked child."""
        return self._hierarchy.state in (LifecycleState.READ_ONLY, LifecycleState.FORKED)

    def resize(self, tier: TierChoice, size: float | str) -> None:
        """Let a tier hold `size` from now on, while it is in use.

        What is too much for a smaller tier moves down first, or is dropped where it may be. The
        size is not remembered: the next opening takes the one that it is given.

        Args:
            tier: `"hot"`, `"warm"` or `"cold"`.
            size: As for the constructor: GB, or a text like `"512MiB"`, `"25%"` or `"auto"`.

        Raises:
            InvalidOptionError: it is not a size, or the tier has none.
            TierFullError: too little may leave the tier; its size stays as it was.
        """
        name = check_tier(tier)
        if name is TierName.GLACIER:
            raise InvalidOptionError("glacier has no size: what it may hold is not limited")
        from memories.engine.resizing import Resizing

        nbytes = check_size(name, size, self.path)
        Resizing(self._hierarchy).resize(name, nbytes)
        self._services.settings.capacities[name] = nbytes

    def evict_one(self, tier: TierChoice = "warm") -> str | None:
        """Move the value out of a tier that should leave it next, and return its key.

        It goes where it would go if the tier needed room; out of RAM, where hot and warm are one
        pool. A host that watches the memory of the whole process calls this until it is content.

        Returns:
            The key; None if nothing may leave the tier.
        """
        from memories.engine.resizing import Resizing

        return Resizing(self._hierarchy).evict_one(check_tier(tier))

    def victim(self, tier: TierChoice = "warm") -> str | None:
        """Return the key that `evict_one` would move out of a tier next; nothing moves.

        It stays the answer until it is read, changed, moved or removed. Whatever makes room in the
        tier begins with it.

        Returns:
            The key; None if nothing may leave the tier.
        """
        from memories.engine.resizing import Resizing

        return Resizing(self._hierarchy).victim(check_tier(tier))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # It stands for a store: two of them would be two owners of one directory.

    def __enter__(self) -> Self:
        self._hierarchy.require_readable()
        from memories.core.open_stores import require_alone

        require_alone(self._lifecycle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        if error is None:
            self.cleanup()
            return
        try:
            self.cleanup()
        except Exception as failure:
            error.add_note(f"cleanup() after it: {type(failure).__name__}: {failure}")

    def __repr__(self) -> str:
        from memories.core.explain import describe

        return describe(self._services, type(self).__name__)

    def rotate_key(self, to: str | EncryptionKey | None = None) -> KeyRotation:
        """Wrap the data keys of an encrypted store with the newest version of its master key.

        No value is written again, readers and other calls go on, and it may be interrupted and
        called again. Returns how many keys were wrapped anew, and by what.

        Args:
            to: Another master key that takes the place of the one in `encryption`; later openings
                need this one.

        Raises:
            InvalidOptionError: the store is not encrypted, or ends with this manager.
            EncryptionKeyError: the master key lacks the version in use.
        """
        return self._services.rotate_key(EncryptionKey.parse(to))

    def __reduce__(self) -> tuple[Callable[..., MemoryManager], tuple[Any, ...]]:
        """Return how another process opens the store of this manager, for reading only.

        So a pickled manager is a reader of what is on the disk; a copy within the process
        (`copy.copy`, `copy.deepcopy`) is the manager itself.

        Raises:
            UnsupportedTypeError: it has no `storage_path`.
        """
        self._hierarchy.require_readable()
        return open_reader, (MemoryManager, *self._services.reader_arguments())

    def _memories_hashed_as(self) -> tuple[Any, ...]:
        """Return what a function that reads this manager depends on, not what is stored in it."""
        return self._services.location()

    def enable_analytics(self, interval: float = 0.25, history: int = 4096) -> None:
        """Start sampling every `interval` seconds, keeping at most `history` points.

        With a `storage_path` the series are also written beside the store, for other processes.
        """
        self._hierarchy.require_readable()
        self._services.telemetry.enable(interval, history)

    def get_analytics(self, window: float | None = None) -> Series:
        """Return equal-length series: timestamps (s), hot/warm/cold usage (%), hit rate (%), more.

        It is a dict of lists, with `to_pandas`, `to_arrow`, `to_csv`. `window` is in seconds.
        """
        self._hierarchy.require_readable()
        return self._services.telemetry.series(window)

    def plot_analytics(self, path_or_ax: Any = None) -> Any:
        """Plot the analytics with matplotlib into a file or an Axes, and return the Axes."""
        return self._reports.plot(path_or_ax)

    def telemetry(self) -> Document:
        """Return the present state as plain data: tiers, moves, latencies, hot keys.

        `memories top`, the dashboard and the metrics show it; docs/analytics.md has its fields.
        """
        self._hierarchy.require_readable()
        return self._services.telemetry.document()

    def report(self, path: str | os.PathLike[str]) -> None:
        """Write one self-contained HTML file about the manager; StorageError if that fails."""
        self._reports.write(path)

    def dashboard(
        self,
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        token: str | None = None,
        hosts: Collection[str] = (),
    ) -> Dashboard:
        """Serve a live page about the manager; the result has its `url`, and `stop()` ends it.

        Args:
            port: The port, 0 for any that is free.
            host: The address to listen on; anything but the loopback needs a token.
            token: The secret that a request must show to change something; None: read-only.
            hosts: Names under which it is reached besides `localhost` and addresses.

        Raises:
            MissingPackageError: starlette or uvicorn is not installed.
            InvalidOptionError: the address is not the loopback, and there is no token.
            StorageError: the port is in use.
        """
        return self._reports.serve(self, host=host, port=port, token=token, hosts=hosts)

    def _repr_html_(self) -> str:
        return self._reports.fragment()
