"""One manager's works, from their making to their end.

It owns what has a life of its own (threads, files, sampling) and ends it in order. What happens at
a fork is defined here, what happens to those that nobody has closed in `ending`.
"""

from __future__ import annotations

import errno
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from memories.backends.base import Backend, Problem
from memories.core.advise import Advice, advise
from memories.core.ending import Ending
from memories.core.oom import OomGuard
from memories.core.read_options import ReadOptions
from memories.core.trace_recorder import TraceRecorder
from memories.core.write_behind import WriteBehind
from memories.devices import Device
from memories.engine.access_sampler import AccessSampler
from memories.engine.batch_read import restore
from memories.engine.hierarchy import Hierarchy
from memories.engine.lifecycle_state import LifecycleState
from memories.engine.operations import Operations, operation
from memories.errors import ArchivedError, StorageError, TierFullError, UnavailableError, as_one
from memories.foundation.clock import Clock
from memories.foundation.fork_lock import new_lock
from memories.foundation.forks import after_fork
from memories.foundation.parallel import stop_helpers
from memories.foundation.units import format_size, limit_words, parse_size
from memories.migration.migrator import Migrator
from memories.migration.prefetching import Prefetching
from memories.model.tiers import TierName
from memories.observe.analytics import plot
from memories.observe.analytics.plot_panels import MOST_ENTRIES, heat_of
from memories.observe.counters import Statistics, Stats
from memories.observe.move_log import History
from memories.observe.telemetry_service import TelemetryService
from memories.options.settings import Settings
from memories.progress import Progress, Step, counted

if TYPE_CHECKING:
    from memories.observe.analytics import Series
    from memories.snapshot.tier_restore import TierRestore

T = TypeVar("T")


class Part(NamedTuple):
    """Something of an engine that ends, and what it is, in words."""

    title: str
    end: Callable[[], object]


_engines: set[Engine] = set()  # Those that run; each leaves when it ends.


@dataclass(eq=False, slots=True, weakref_slot=True, kw_only=True)
class Engine:
    """Everything behind one `MemoryManager`."""

    settings: Settings
    hierarchy: Hierarchy
    migrator: Migrator | None
    prefetching: Prefetching | None
    sampler: AccessSampler
    statistics: Statistics
    history: History
    clock: Clock
    backends: list[Backend]
    media: dict[TierName, str]  # What each tier really is, in words.
    remove_private: Callable[[], None] | None  # Removes the private directory, if there is one.
    purge_archive: Callable[[int], None] | None
    device: Device | None  # What the hot tier lies on; None where RAM stands in for it.
    observatory: TelemetryService = field(init=False)
    ends_first: list[Part] = field(default_factory=list)  # What shows or uses this engine.
    ending: Ending = field(init=False)
    backing: WriteBehind = field(init=False)
    parts: deque[Part] | None = field(default=None)  # What has still to end, once the end began.
    closing: threading.RLock = field(default_factory=threading.RLock)
    tier_restore: TierRestore | None = field(default=None)  # Of the latest restore.
    recording: TraceRecorder | None = field(default=None)  # The latest.

    def __post_init__(self) -> None:
        """Be told of forks and of the interpreter's exit."""
        directory = self.settings.storage_path
        if self.remove_private is not None or self.settings.read_only:
            directory = None
        # It holds what it reads, not the engine: its threads must not keep a manager alive.
        self.observatory = TelemetryService(
            partial(self.statistics.read, self.hierarchy, self.media),
            self.hierarchy,
            self.history,
            self.clock,
            directory,
        )
        _engines.add(self)
        self.backing = WriteBehind(self.hierarchy)
        self.ending = Ending(self)

    @property
    def outlives(self) -> bool:
        """Return whether what is stored may be read when this process is gone."""
        archived = self.settings.glacier_enabled and self.settings.glacier_url is not None
        return self.remove_private is None or archived

    @property
    def operations(self) -> Operations:
        """Return the calls that are under way."""
        return self.hierarchy.operations

    def retrieve(self, key: str, wish: ReadOptions) -> Any:
        """Return a value off the hit path, the way that the reader wants it."""
        if wish.usual:
            return self.hierarchy.get(key)
        trust, device = self.hierarchy.trust, self.device
        return self.hierarchy.open(
            key,
            lambda payload, verify: wish.granted(payload, verify, trust, device),
            whole=wish.whole,
        )

    def oom_guard(self, reserve_bytes: int) -> OomGuard:
        """Return what makes the hot tier give way to the caller's own allocations."""
        self.hierarchy.require_readable()
        held = self.hierarchy.tiers[TierName.HOT].budget
        return OomGuard(self.device, lambda: held.used, reserve_bytes)

    def restored(self, keys: Iterable[str], timeout: float | None, read: Callable[[], T]) -> T:
        """Return `read()`; where that is refused, have `keys` restored first if told to wait."""
        try:
            return read()
        except ArchivedError:
            if timeout is None:
                raise
        restore(self.hierarchy, keys, timeout)
        return read()

    def prefetch(self, keys: Iterable[str]) -> int:
        """Fetch `keys` in the background and return how many will be."""
        return 0 if self.prefetching is None else self.prefetching.ask(keys)

    def stats(self) -> Stats:
        """Return counters and sizes, as of now."""
        return self.statistics.read(self.hierarchy, self.media)

    def advise(self, more: float | str) -> Advice:
        """Return what more room in each tier would buy."""
        stats = self.stats()
        curve = self.sampler.curve(stats.reads - stats.misses)
        return advise(curve, stats, parse_size(more, name="more"))

    def record_trace(self, path: str | os.PathLike[str], **options: Any) -> TraceRecorder:
        """Start to record accesses into the file at `path`."""
        self.hierarchy.require_readable()
        if self.recording is not None:
            self.recording.stop()
        self.recording = TraceRecorder(self.hierarchy, self.sampler, self.clock, path, **options)
        return self.recording

    def usage_percent(self) -> dict[str, float]:
        """Return what each tier holds in percent of its configured size; 0 for a disabled one."""
        self.hierarchy.require_readable()
        percent = {str(name): 0.0 for name in TierName}
        for name, tier in self.hierarchy.tiers.items():
            if tier.budget.configured:
                percent[name] = 100.0 * tier.budget.used / tier.budget.configured
        return percent

    @operation
    def check(
        self, *, repair: bool, dry_run: bool = False, progress: Progress | None
    ) -> list[Problem]:
        """Verify what lies in durable tiers; the last call of `progress` says that it ended."""
        self.hierarchy.require_readable()
        if repair:
            self.hierarchy.require_writable()
        total = sum(backend.usage().live for backend in self.backends)
        advance = counted(progress, total)
        problems: list[Problem] = []
        for backend in self.backends:
            if backend.remote:
                problems += self._check_archive(backend, repair and not dry_run, advance)
            else:
                problems += backend.check(repair=repair, dry_run=dry_run, progress=advance)
        if TierName.GLACIER not in self.hierarchy.tiers:
            problems += self._unseen("the manager was made without its archive; give glacier_url")
        if progress is not None:
            progress(total, total)
        return problems

    def _check_archive(
        self, archive: Backend, repair: bool, progress: Step | None
    ) -> list[Problem]:
        try:
            found = archive.check(repair=repair, progress=progress)
        except UnavailableError as error:
            return self._unseen(str(error)) or [Problem(None, str(error), False, True)]
        known = {problem.key for problem in found}
        for record in self.hierarchy.catalog.journal.scan():
            if record.tier is not TierName.GLACIER or record.key in known:
                continue
            there = archive.find(record.key)
            if there is not None and there.version >= record.version:
                continue
            if not self.hierarchy.is_kept(record):
                what = "it was archived, and no object of the archive holds it any more"
                found.append(Problem(record.key, what, repair))
        return [self._forget_archived(problem) for problem in found] if repair else found

    def _forget_archived(self, problem: Problem) -> Problem:
        """Return a problem that the archive has repaired, and what that means for the key."""
        if problem.key is None or not problem.repaired:
            return problem
        rest = self.hierarchy.forget_archived(problem.key)
        fate = "another copy of the value is left" if rest else "the value is lost"
        return problem._replace(what=f"{problem.what}; {fate}")

    def _unseen(self, why: str) -> list[Problem]:
        """Return that archived values, if there are any, were not looked at."""
        records = self.hierarchy.catalog.journal.scan()
        count = sum(record.tier is TierName.GLACIER for record in records)
        what = f"{count:,} archived values were not looked at: {why}"
        return [Problem(None, what, False, True)] if count else []

    def create_snapshot(self, path: str | os.PathLike[str], **options: Any) -> None:
        """Write what is there, as of this instant, into the file at `path`."""
        self.hierarchy.require_readable()
        # Imported at use, like every service that most programs never ask for.
        from memories.snapshot.api import create_snapshot

        self.operations.run(create_snapshot, self.hierarchy, path, **options)

    def restore_snapshot(self, path: str | os.PathLike[str], **options: Any) -> None:
        """Take in what the file at `path` holds."""
        self.hierarchy.require_writable()
        if self.tier_restore is not None:
            self.tier_restore.stop()
        from memories.snapshot.api import restore_snapshot

        run = self.operations.run
        self.tier_restore = run(restore_snapshot, self.hierarchy, path, **options)

    def snapshots_in_archive(self) -> dict[str, int]:
        """Return which snapshots refer to the archive, and to how many objects."""
        self.hierarchy.require_readable()
        from memories.snapshot.archive_references import referring

        return referring(self.hierarchy)

    @operation
    def release_snapshot(self, identity: str) -> int:
        """Let go of what a snapshot keeps in the archive."""
        self.hierarchy.require_writable()
        from memories.snapshot.archive_references import release

        return release(self.hierarchy, identity)

    @operation
    def flush(self) -> None:
        """Give every volatile version a durable copy, and return once all is synced.

        What could be written is synced though others could not, in one tier or in all.
        """
        self.hierarchy.require_writable()
        failures = _failures(self.hierarchy.flush, *(backend.sync for backend in self.backends))
        try:
            if failures:
                raise as_one(failures)
        finally:
            del failures  # See `_failures`.

    @operation
    def clear(self, *, purge: bool) -> None:
        """Remove every key, and with `purge` unlink what is archived at once."""
        version = self.hierarchy.clear()
        if purge and self.purge_archive is not None:
            self.purge_archive(version)

    def enable_analytics(self, interval: float, history: int) -> None:
        """Start sampling, from the beginning if it was on already."""
        self.hierarchy.require_readable()
        self.observatory.enable(interval, history)

    def get_analytics(self, window: float | None) -> Series:
        """Return the series sampled so far."""
        self.hierarchy.require_readable()
        return self.observatory.series(window)

    def plot_analytics(self, path_or_ax: Any) -> Any:
        """Plot the series sampled so far."""
        stats = self.stats()
        entries = islice(list(self.hierarchy.catalog.entries.values()), MOST_ENTRIES)
        return plot(
            self.get_analytics(None),
            path_or_ax,
            heat=heat_of(entries),
            curve=self.sampler.curve(stats.reads - stats.misses),
        )

    def describe(self) -> str:
        """Return the state of the manager in one line."""
        if self.hierarchy.state is LifecycleState.CLOSED:
            return "<MemoryManager closed>"
        tiers = ", ".join(
            f"{name} {format_size(tier.budget.used)} of {limit_words(tier.budget.configured)}"
            f" [{self.media[name]}]"
            for name, tier in self.hierarchy.tiers.items()
        )
        state = (
            "" if self.hierarchy.state is LifecycleState.OPEN else f" {self.hierarchy.state.value}"
        )
        stats, keys = self.stats(), len(self.hierarchy)
        rate = (
            f"hit rate {stats.hit_rate_percent:.0f} % of {stats.reads} reads"
            if stats.reads
            else "no reads"
        )
        latest = self.history.latest
        move = f"; last move {latest[-1].key[:60]!r} to {latest[-1].target}" if latest else ""
        return f"<MemoryManager{state}: {keys} keys; {tiers}; {rate}{move}>"

    def reader_arguments(self) -> tuple[Any, ...]:
        """Return what a read-only manager of the same store is made with."""
        self.hierarchy.require_readable()
        capacities = self.settings.capacities
        sizes = [f"{capacities[name]} B" for name in (TierName.HOT, TierName.WARM, TierName.COLD)]
        options = {
            "storage_path": None if self.remove_private else self.settings.storage_path,
            "glacier_url": self.settings.glacier_url,
            "storage_options": dict(self.settings.storage_options),
        }
        return (*sizes, self.settings.glacier_enabled, options)

    @operation
    def close(self, *, flush: bool = True) -> None:
        """End everything; what is only in RAM is written first if the store is to stay.

        Each part ends, also when others fail to. An interrupt passes: the next call goes on.

        Raises:
            TierFullError: the store cannot take what is only in RAM; nothing has ended.
            StorageError: the disk is full; nothing has ended.
            MemoriesError: what could not be saved; everything has ended.
        """
        with self.closing:
            failures: list[Exception] = []
            if flush and self.kept:
                # The archive takes what is staged when it ends.
                failures = _failures(self.hierarchy.flush, self.backends[0].sync)
            for failure in filter(_for_want_of_room, failures):
                raise self._still_open(failure) from failure
            self._end(failures)

    @property
    def kept(self) -> bool:
        """Return whether what is only in RAM is to stay, and can be written."""
        return self.hierarchy.state is LifecycleState.OPEN and self.remove_private is None

    # What ends unasked: a forgotten engine, and one that is there at the interpreter's exit.

    @property
    def title(self) -> str:
        """Return what this is, in words."""
        where = self.settings.storage_path
        return "a manager without storage_path" if where is None else f"the store in {where}"

    @property
    def directory(self) -> Path | None:
        """Return the directory that is locked while this is open."""
        return None if self.settings.read_only else self.settings.storage_path

    @property
    def stage(self) -> str:
        """Return what is ending just now, in words."""
        return self.parts[0].title if self.parts else "its values"

    @property
    def flush_seconds(self) -> float:
        """Return for how long values may be written down when the end comes unasked."""
        return self.settings.exit_flush_seconds

    def unwritten(self) -> list[str]:
        """Return the keys whose values are only in RAM, but for those that may be dropped."""
        return self.hierarchy.unwritten()

    def write_down(self, seconds: float) -> None:
        """Write what is only in RAM, for so long at most."""
        with self.closing:
            if self.kept:
                until = self.clock.monotonic() + seconds
                failures = _failures(lambda: self.hierarchy.flush(until), self.backends[0].sync)
                if failures:
                    raise as_one(failures)

    def end(self) -> None:
        """End everything without writing what is only in RAM."""
        with self.closing:
            self._end([])

    @property
    def closed(self) -> bool:
        """Return whether it has ended."""
        return self.hierarchy.state is LifecycleState.CLOSED

    def ends_before(self, end: Callable[[], object], title: str) -> None:
        """Call `end` before anything that it shows or uses ends."""
        self.ends_first.append(Part(title, end))

    def end_with(self, owner: object) -> None:
        """End when `owner` is garbage, in a thread of its own."""
        weakref.finalize(owner, _forgotten, self).atexit = False

    def after_fork(self) -> None:
        """In a forked child: read on, touch no inherited lock or thread, change nothing."""
        if self.hierarchy.state is not LifecycleState.CLOSED:
            self.hierarchy.after_fork()
            self.observatory.forget()
            self.ending.forget()
            self.closing = new_lock()
            self.ends_first.clear()
            self.tier_restore = self.recording = None

    def _end(self, failures: list[Exception]) -> None:
        """End one part after the other, and raise then what kept any of them from it."""
        if self.parts is None:
            self.parts = deque(self._all_parts())
        while self.parts:
            part = self.parts[0]
            try:
                part.end()
            except Exception as error:
                failures.append(error)
            if self.parts and self.parts[0] is part:
                self.parts.popleft()
        if failures:
            raise as_one(failures)

    def _all_parts(self) -> Iterator[Part]:
        """Yield what is to end, in order; of an inherited engine only what is this process's."""
        if self.hierarchy.state is not LifecycleState.FORKED:
            yield from self.ends_first
            for title, one in (
                ("a restore", self.tier_restore),
                ("a recording", self.recording),
                ("fetching ahead", self.prefetching),
                ("migration", self.migrator),
                ("copies of results", self.backing),
                ("telemetry", self.observatory),
            ):
                if one is not None:
                    yield Part(title, one.stop)
        yield Part("its values", self._forget)
        for backend in reversed(self.backends):
            yield Part("the archive" if backend.remote else "the disk", backend.close)
        if self.remove_private is not None:
            yield Part("its directory", self.remove_private)
        yield Part("its helpers", stop_helpers)
        yield Part("the rest", self._be_over)

    def _be_over(self) -> None:
        _engines.discard(self)
        self.ending.over()

    def _still_open(self, error: Exception) -> Exception:
        count = len(self.hierarchy.unwritten())
        still = f"{count} values are only in RAM, and the" if count else "The"
        kind = TierFullError if isinstance(error, TierFullError) else StorageError
        return kind(
            f"{error}. {still} manager stays open, so that nothing is lost: make room (delete or "
            "archive keys, or free the disk) and call cleanup() again, or cleanup(flush=False) to "
            "end without what is not durable"
        )

    def _forget(self) -> None:
        self.hierarchy.state = LifecycleState.CLOSED
        for entry in self.hierarchy.catalog.clear():
            self.hierarchy.mover.let_go(entry)


def _failures(*steps: Callable[[], object]) -> list[Exception]:
    """Take every step, and return what kept any of them from its end."""
    failures = []
    for step in steps:
        try:
            step()
        except Exception as error:
            failures.append(error)
    try:
        return failures
    finally:
        del failures  # This frame and the errors would keep each other, and values, for long.


def _for_want_of_room(error: Exception) -> bool:
    """Return whether somebody can make room, and what failed will succeed."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or isinstance(error, TierFullError)


def _forgotten(engine: Engine) -> None:
    """End an engine whose manager is garbage; in any thread, in the middle of anything."""
    if engine.hierarchy.state in (LifecycleState.OPEN, LifecycleState.READ_ONLY):
        engine.ending.ask()
        engine.ending.warn()


after_fork(_engines, Engine.after_fork)
