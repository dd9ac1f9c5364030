"""The manager: the face of the library, and nothing behind it.

It checks what it is given, asks the hierarchy, and hands on. A hit is one look into the catalog's
dict and the entry's own `read`; everything else takes the slow road.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Self

from memories.backends.base import Problem
from memories.core.advise import Advice
from memories.core.explain import Explanation, explain
from memories.core.faces import Faces
from memories.core.lifecycle import Engine
from memories.core.oom import OomGuard
from memories.core.trace_recorder import TraceRecorder
from memories.core.values import Values
from memories.core.wiring import assemble
from memories.devices import Device
from memories.errors import InvalidOptionError
from memories.foundation.keys import check_key
from memories.foundation.units import parse_size
from memories.model.rules import Rule
from memories.model.tiers import Cause
from memories.observe.counters import Stats
from memories.options.configured_constructor import configured
from memories.options.migration import MigrationSettings
from memories.options.settings import check_flag, check_tier, make_settings


class MemoryManager(Faces, Values):
    """Keeps Python data in four tiers behind one `store` and one `retrieve`.

    It is a `MutableMapping[str, Any]` besides, a context manager, and safe to use from any number
    of threads. Several managers live side by side in a process. What an argument does not say,
    `MEMORIES_*` variables, the project's `memories.toml` and the user's `config.toml` may.

    Args:
        hot_memory_size: Capacity of the hot tier, in GB (10**9 bytes) or a string like `"512MiB"`.
        warm_memory_size: Capacity of the warm tier (RAM).
        cold_memory_size: Capacity of the cold tier (local disk).
        glacier_memory_enabled: Whether there is a fourth tier, off the device.
        storage_path: Directory of the cold tier and the catalog. None is a private temporary
            directory, removed by `cleanup()`.
        glacier_url: Where glacier lies: `"s3://bucket/prefix"`, `"gs://"`, `"az://"`,
            `"file:///..."` or a path. None is a directory beside the cold tier.
        storage_options: Credentials, endpoint and so on, under the names that fsspec and obstore
            use. Never logged.
        hot_device: `"auto"` for the GPU of torch or CuPy where one of them is loaded and finds one,
            `"cuda:0"`, or `"cpu"`. Without a GPU the hot tier is host RAM of the same
            capacity, and `repr`, `stats()` and one INFO log line say so.
        eviction_policy: One policy's name, or one each for `{"hot": ..., "warm": ...}`.
        compression: `{"cold": ..., "glacier": ...}`: a codec's name and level, `"auto"` or
            `"none"`.
        durability: `"relaxed"` (after a power cut the store is a prefix of its history, at most
            a second short) or `"full"` (nothing acknowledged is ever lost).
        exit_flush_seconds: With a `storage_path`, for how long what is only in RAM is written down
            where nobody has called `cleanup()`: at a normal exit of the interpreter, or when the
            manager is garbage. 0 for not at all; SIGTERM, `os._exit` and kill never do it.
        write_through: Whether every store also writes a durable copy before it returns.
        on_full: `"raise"` a `TierFullError` when the last tier is full, or `"evict"`.
        migration: `MigrationSettings`, `False` for none, None for the defaults.
        prefetch: `"auto"` fetches ahead what three predictors expect, `"successor"`, `"stride"` or
            `"pattern"` what this one does, `"off"` only what `prefetch(keys)` names.
        rules: What holds for the keys with a prefix: `Rule(prefix="archive/", move_to="glacier",
            after="30 days")`.
        read_only: Open an existing store beside its writer, or the archive at `glacier_url` from
            any machine, and change nothing.
        takeover: Become the writer of the archive although another store seems to be it, or
            although the archive was emptied. Whoever was the writer is refused from then on.
        trusted_keys: Keys of others (`memories key export`) whose pickled objects may be read here.

    Raises:
        InvalidOptionError: An option means nothing.
        StorageError: The directory cannot be used.
        StoreLockedError: Another manager is the writer of this store.
    """

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
        eviction_policy: str | Mapping[str, str] = "auto",
        compression: Mapping[str, str] | None = None,
        durability: Literal["relaxed", "full"] = "relaxed",
        exit_flush_seconds: float = 30.0,
        write_through: bool = False,
        on_full: Literal["raise", "evict"] = "raise",
        migration: MigrationSettings | Literal[False] | None = None,
        prefetch: str = "auto",
        rules: Iterable[Rule] = (),
        read_only: bool = False,
        takeover: bool = False,
        trusted_keys: Iterable[str] = (),
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
        )
        self._engine: Engine = assemble(settings, migration)
        self._engine.end_with(self)
        self._hierarchy = self._engine.hierarchy
        self._entries = self._hierarchy.catalog.entries
        self._front = self._hierarchy.catalog.front
        self._at_front = self._front.values

    # Where things are

    def migrate(self, key: str, tier: str) -> None:
        """Move `key` to `tier`.

        Raises:
            KeyNotFoundError: it is in no tier.
            InvalidOptionError: the tier is unknown or disabled, or the key's terms forbid it.
            TierFullError: the tier cannot make room; the value stays where it was.
        """
        self._hierarchy.move(check_key(key), check_tier(tier), Cause.EXPLICIT)

    def promote(self, key: str) -> str:
        """Move `key` one tier up and return where it is now; the fastest tier is a no-op."""
        return self._step(key, -1)

    def demote(self, key: str) -> str:
        """Move `key` one tier down and return where it is now; the slowest tier is a no-op."""
        return self._step(key, 1)

    def prefetch(self, keys: Iterable[str]) -> int:
        """Bring `keys` up to warm in the background, and return how many will be.

        Left out are those that are in RAM already, are absent, or must stay below, and what
        exceeds half of warm: ask again when some were read.
        """
        self._hierarchy.require_writable()
        return self._engine.prefetch([check_key(key) for key in keys])

    def pin(self, key: str) -> None:
        """Forbid moving and evicting `key`."""
        self._set_pinned(key, True)

    def unpin(self, key: str) -> None:
        """Let `key` move again."""
        self._set_pinned(key, False)

    def get_memory_usage(self) -> dict[str, float]:
        """Return what each tier holds, in percent of its configured size (0 when disabled)."""
        return self._engine.usage_percent()

    def stats(self) -> Stats:
        """Return counters and sizes of every tier, as of now."""
        return self._engine.stats()

    def explain(self, key: str) -> Explanation:
        """Return where `key` is, why, and its latest moves."""
        return explain(self._engine, check_key(key))

    def advise(self, more: float | str = 1) -> Advice:
        """Return what `more` room (in GB, or `"512MiB"`) in each tier would buy.

        In hit rate and in time, from the reads of a sample of the keys so far.
        """
        return self._engine.advise(more)

    def record_trace(
        self,
        path: str | os.PathLike[str],
        *,
        share: float = 1.0,
        max_bytes: float | str = 1,
    ) -> TraceRecorder:
        """Record what is stored and read from now on, as a trace for `memories simulate`.

        A line holds the time, the key and the size of an access. Recording ends with `stop()` of
        what is returned, or at the end of a `with` statement around it.

        Args:
            path: A file whose name ends in `.jsonl`; what lies there is replaced.
            share: The share of the keys that is recorded, each with all of its accesses.
            max_bytes: At which size, in GB or like `"10 MB"`, the file ends.
        """
        return self._engine.record_trace(path, share=share, max_bytes=max_bytes)

    # The whole of it

    def create_snapshot(
        self,
        path: str | os.PathLike[str],
        *,
        tiers: Iterable[str] | None = None,
        prefix: str = "",
        base: str | os.PathLike[str] | None = None,
        include_glacier: bool | Literal["reference"] = True,
        portable: bool = False,
        progress: Callable[[int, int], object] | None = None,
    ) -> None:
        """Write every key, as of this instant, into one file at `path`, while writers go on.

        Other tools open the file: `numpy.load(path)["key"]` gives every array that is held raw.

        Args:
            path: The file; what lies there is replaced at the very end, or not at all.
            tiers: Take only what lies in these.
            prefix: Take only keys that start with this.
            base: An earlier snapshot: only what has changed since is written, the rest is linked.
            include_glacier: False leaves archived values out; `"reference"` refers to them, and
                keeps them from being unlinked.
            portable: Decompress everything, so that other tools can read all arrays.
            progress: Called with the bytes written so far, and about how many there will be.

        Raises:
            StorageError: the file cannot be written; what was at `path` stays.
            CorruptDataError: a value at rest is damaged; the message names its key.
        """
        self._engine.create_snapshot(
            path,
            tiers=tiers,
            prefix=prefix,
            base=base,
            include_glacier=include_glacier,
            portable=portable,
            progress=progress,
        )

    def restore_snapshot(
        self,
        path: str | os.PathLike[str],
        *,
        mode: Literal["replace", "merge", "keep"] = "replace",
        verify: Literal["full", "lazy"] = "full",
        wait: bool = False,
        bases: Sequence[str | os.PathLike[str]] = (),
        progress: Callable[[int, int], object] | None = None,
    ) -> None:
        """Take in what the snapshot at `path` holds.

        Values return to the tiers they had: a few hundred before this returns if the file was
        verified, the rest in the background, and whatever is read meanwhile is read from the file.
        Those of 1 MB and more are not copied even then, but mapped.
        The caller may delete or replace the file right afterwards, but nobody may write into it.

        Args:
            path: The snapshot.
            mode: `"replace"` removes all other keys, `"merge"` only overwrites, `"keep"` only adds.
            verify: `"full"` reads and checks the whole file before anything is changed; `"lazy"`
                checks structure and manifest, and each value at its first use. From another file
                system it is then copied in the background, and volatile until that ends.
            wait: Return only when every value is in the tier it had.
            bases: Where the earlier snapshots of an incremental one lie, if not where they lay.
            progress: Called with the bytes verified so far, and how many there are.

        Raises:
            StorageError: there is no such file, or one that it builds on is missing.
            CorruptDataError: a file is damaged or no snapshot; nothing has changed.
            TierFullError: there is no room for it; nothing has changed.
        """
        self._engine.restore_snapshot(
            path, mode=mode, verify=verify, wait=wait, bases=bases, progress=progress
        )

    def snapshots_in_archive(self) -> dict[str, int]:
        """Return which snapshots keep archived objects by reference, by id, and how many each."""
        return self._engine.snapshots_in_archive()

    def release_snapshot(self, identity: str) -> int:
        """Let go of the archived objects that a snapshot keeps, for its file is gone for good.

        Returns how many those are. What no key names either is unlinked after its grace time.

        Raises:
            InvalidOptionError: no snapshot of that id keeps anything here.
        """
        return self._engine.release_snapshot(identity)

    def oom_guard(self, reserve: float | int | str = 0) -> OomGuard:
        """Let the hot tier give way when your own work runs out of the device's memory.

        As a decorator (`@manager.oom_guard()`) it runs the function again after room was made. As a
        context it makes `reserve` of room first; an out-of-memory error in it comes through, with a
        note that the same will fit now (CuPy's allocations are tried again by themselves). Without
        a device it does nothing.

        Args:
            reserve: Room to make beforehand: gigabytes, or a string such as `"512MiB"`.
        """
        return self._engine.oom_guard(parse_size(reserve, name="reserve"))

    def clear(self, *, purge: bool = False) -> None:
        """Remove every key.

        Archived objects are unlinked after their grace time (7 days), or at once with `purge`.
        """
        self._engine.clear(purge=purge)

    def flush(self) -> None:
        """Give every value a durable copy and return once it is on the disk."""
        self._engine.flush()

    def check(
        self,
        repair: bool = False,
        *,
        dry_run: bool = False,
        progress: Callable[[int, int], object] | None = None,
    ) -> list[Problem]:
        """Verify everything that lies in durable tiers and return what is wrong with it.

        Archived values are read as well, which is a download of all of them; what could not be
        looked at is `unchecked`. With `repair`, damaged values are dropped, the index is rebuilt,
        and each problem says whether a value was lost. What repair takes out of a store lies in
        `lost+found` beside it afterwards, with a report. What is not there or cannot be read is
        named and stays as it is: only what was read is known to be damaged.

        Args:
            repair: Mend what can be mended.
            dry_run: With `repair`, only say what would be done, as the `remedy` of each problem.
            progress: Called with the bytes verified so far, and how many there are.

        Raises:
            StorageError: the directory of the store is not there.
        """
        return self._engine.check(repair=repair, dry_run=dry_run, progress=progress)

    def cleanup(self, *, flush: bool = True) -> None:
        """Close the manager. Idempotent.

        With a `storage_path`, hot and warm values are written to cold first, so that opening it
        again gives everything back; a private directory is removed. When this returns or raises,
        every file, thread and connection has ended, unless it says that the manager stays open.
        A `with` statement whose body raises keeps that exception, with a note of what went wrong
        here.

        Args:
            flush: False gives up what is only in RAM.

        Raises:
            TierFullError: what is only in RAM does not fit on disk; the manager stays open. Make
                room and call again, or give up with `flush=False`.
            MemoriesError: something could not be saved; all has ended, and the message names it.
        """
        self._engine.close(flush=check_flag("flush", flush))

    def __enter__(self) -> Self:
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
        return self._engine.describe()

    def __reduce__(self) -> tuple[Callable[..., MemoryManager], tuple[Any, ...]]:
        return _reader, self._engine.reader_arguments()

    def _step(self, key: str, direction: int) -> str:
        key = check_key(key)
        names = list(self._hierarchy.tiers)
        index = names.index(self._hierarchy.find(key).tier) + direction
        if 0 <= index < len(names):
            self._hierarchy.move(key, names[index], Cause.EXPLICIT)
        return self.get_tier(key)

    def _set_pinned(self, key: str, pinned: bool) -> None:
        from msgspec.structs import replace

        self._hierarchy.set_terms(check_key(key), lambda terms: replace(terms, pinned=pinned))


def _reader(*arguments: Any) -> MemoryManager:
    """Open the read-only manager that a pickled one stands for."""
    hot, warm, cold, glacier, options = arguments
    if options["storage_path"] is None:
        raise InvalidOptionError("a pickled manager needs the store of the one it was made from")
    return MemoryManager(hot, warm, cold, glacier, **options, read_only=True)
