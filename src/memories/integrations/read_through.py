"""Values of a source that a manager keeps: what is fresh, what is being fetched, what has changed.

Used by event loops and threads alike; the adapters of the hosts do the waiting and the requests.
A value of the source is an *object*, with a name; it is kept whole or in parts.
"""

from __future__ import annotations

import hashlib
import weakref
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from enum import Enum
from typing import Any, NamedTuple

import msgspec

from memories.core.lifecycle import Lifecycle
from memories.core.manager import MemoryManager
from memories.core.manager_handle import READERS_KEPT
from memories.engine.lifecycle_state import LifecycleState, require_readable
from memories.errors import (
    BusyError,
    ConflictError,
    ForkedError,
    InvalidOptionError,
    KeyNotFoundError,
    TierFullError,
)
from memories.foundation.bounded_dict import BoundedDict
from memories.foundation.fork_lock import new_lock
from memories.foundation.forks import after_fork
from memories.integrations.byte_values import as_bytes, folder, is_in_ram
from memories.model.tiers import StoreTier, TierName
from memories.options.settings import check_seconds, check_tier
from memories.options.store_terms import make_terms

FLIGHT_SECONDS = 60.0  # A caller waits so long for the request of another one, then sends its own.
REMEMBERED_KEYS = 100_000  # When they were last compared with the source, or were absent there.
STRIPES = 64
SOURCES_KEPT = 16  # Of each manager: what is known of a source that no adapter has open.


class KeptState(Enum):
    """What is known of a kept value."""

    FRESH = "fresh"  # It may be served.
    STALE = "stale"  # It is kept, but the source must be asked whether it is still the same.
    UNKNOWN = "unknown"  # It is not kept.


class Kept(NamedTuple):
    """What is kept of an object, or of a part of it; no content if it is absent at the source."""

    state: KeptState
    content: bytes | memoryview | None = None


class AbandonedError(Exception):
    """The call that fetched a value for others was cancelled: one of them must fetch it."""


class KeepTerms(NamedTuple):
    """How long kept values are served, and where they are kept.

    Attributes:
        max_age: Seconds for which a value is served without asking the source; None for ever.
        absent_seconds: Seconds for which it is remembered that an object is absent.
        tier: The tier that values enter first; None for the fastest with room.
    """

    max_age: float | None
    absent_seconds: float
    tier: TierName | None

    @classmethod
    def checked(cls, max_age: float | None, absent_seconds: float, tier: StoreTier) -> KeepTerms:
        """Return the terms of these options; InvalidOptionError if one is invalid."""
        place = None if tier == "auto" else check_tier(tier)
        absent = _seconds("absent_seconds", absent_seconds) or 0.0
        return cls(_seconds("max_age", max_age), absent, place)


def _seconds(name: str, value: float | None) -> float | None:
    """Return a number of seconds, which may be 0, or None."""
    return 0.0 if type(value) in (int, float) and value == 0 else check_seconds(name, value)


class Fetch:
    """A request in progress, whose result other callers wait for."""

    __slots__ = ("begun", "future", "key", "name", "outdated")

    def __init__(self, key: str, name: str, begun: float, *, outdated: bool) -> None:
        self.begun = begun  # A call that began later must not get the failure of this request.
        self.key = key
        self.name = name
        self.future: Future[bytes | memoryview | None] = Future()
        self.outdated = outdated  # The object was written meanwhile: the result is not kept.


class Writing:
    """A write of objects in progress."""

    __slots__ = ("alone", "folder", "key")

    def __init__(self, key: str, *, is_folder: bool) -> None:
        self.key = key
        self.folder = is_folder
        self.alone = True  # No other write of the same object overlapped with it.

    def covers(self, key: str) -> bool:
        """Return whether `key` is written."""
        return key.startswith(self.key) if self.folder else key == self.key


class Known(NamedTuple):
    """What is known of the objects of one source, beyond the life of each adapter."""

    checked: BoundedDict[str, float]  # When each was last the same at the source.
    absent: BoundedDict[str, float]  # When each was last absent there.


def _known_of(manager: MemoryManager, prefix: str, identity: str) -> Known:
    """Return what is known of a source; a store that is opened again does not ask anew."""
    if manager._hierarchy.state is not LifecycleState.OPEN:
        return Known(BoundedDict(REMEMBERED_KEYS), BoundedDict(REMEMBERED_KEYS))
    with _known_lock:
        if (sources := _known.get(manager._lifecycle)) is None:
            sources = _known[manager._lifecycle] = BoundedDict(SOURCES_KEPT, lambda *_: 1)
        found = sources.get((prefix, identity))
        if found is None:
            found = Known(BoundedDict(REMEMBERED_KEYS), BoundedDict(REMEMBERED_KEYS))
            sources.set((prefix, identity), found)
        return found


class ReadThrough:
    """Keeps objects of one source under one prefix of a manager.

    Args:
        manager: The manager; one that only reads keeps nothing.
        prefix: What its keys begin with; no other source may use it.
        identity: What the source is, in words: another one is refused the prefix.
        worker_memory: Bytes of RAM for what is fetched where `manager` only reads.

    Raises:
        InvalidOptionError: the prefix is used for another source.
    """

    def __init__(
        self,
        manager: MemoryManager,
        prefix: str,
        *,
        identity: str,
        worker_memory: int = 0,
    ) -> None:
        self.manager = manager
        self._worker_memory = worker_memory
        self._worker: MemoryManager | None = None
        self.prefix = folder(prefix)
        # Names whose values in a manager that only reads are outdated; or all, after a write.
        self._hidden: set[str] = set()
        self._hides_all = False
        self._clock = manager._services.clock
        self._lock = new_lock()
        self._stripes = [new_lock() for _ in range(STRIPES)]
        self._fetches: dict[str, Fetch] = {}
        self._writings: list[Writing] = []
        known = _known_of(manager, self.prefix, identity)
        self._checked, self._absent = known.checked, known.absent
        # Of objects in parts, and when the source last said so.
        self._tags_of_parts: BoundedDict[str, tuple[str, float]] = BoundedDict(REMEMBERED_KEYS)
        self._claim(identity)
        self._has_parts = next(manager.scan(f"{self.prefix}part/"), None) is not None
        _all.add(self)

    def _claim(self, identity: str) -> None:
        """Note whose objects these are."""
        key = f"{self.prefix}source"
        found = self.manager.retrieve(key, None)
        if found is None and self.writes_here():
            try:  # On the disk at once: at the end there may be no room for it.
                self.manager.store(key, identity, "cold", if_version=0)
            except ConflictError:
                found = self.manager.retrieve(key, None)
        if found not in (None, identity):
            raise InvalidOptionError(
                f"{self.prefix!r} holds what was read from {found!r:.200}, and this source is "
                f"{identity!r:.200}: give each source a prefix of its own"
            )

    def writes_here(self) -> bool:
        """Return whether this process may write into the manager."""
        return self.manager._hierarchy.state is LifecycleState.OPEN

    @property
    def keeps(self) -> bool:
        """Return whether what is fetched is kept."""
        return self.target._hierarchy.state is LifecycleState.OPEN

    @property
    def target(self) -> MemoryManager:
        """Return the manager that keeps what is fetched; a second one where the first only reads.

        A fork of the process that opened the manager needs one, too.
        """
        if self._worker is not None:
            return self._worker
        if self.writes_here() or not self._worker_memory:
            return self.manager
        with self._lock:
            if self._worker is None:
                self._worker = worker_manager(self._worker_memory)
            return self._worker

    @property
    def memory(self) -> int:
        """Return how many bytes of RAM there are for what is fetched."""
        return int(self.target._services.settings.capacities[TierName.WARM])

    @staticmethod
    def name_of(key: str, part: str | None = None) -> str:
        """Return under which name an object, or a part of it, is kept."""
        return f"whole/{key}" if part is None else f"part/{key}/{part}"

    def look_up(self, name: str, terms: KeepTerms) -> Kept:
        """Return what is kept under `name`. It may read from the disk."""
        if self.is_absent(name, terms):
            return Kept(KeptState.FRESH)
        content = None
        for manager in self._places(name):
            content = manager.retrieve(self.prefix + name, None)
            if content is not None:
                break
        if content is None:
            return Kept(KeptState.UNKNOWN)
        state = KeptState.FRESH if self._is_fresh(name, terms) else KeptState.STALE
        return Kept(state, as_bytes(self.prefix + name, content))

    def is_absent(self, name: str, terms: KeepTerms) -> bool:
        """Return whether it is remembered that the source does not have it."""
        asked = self._absent.get(name)
        return asked is not None and self._clock.monotonic() - asked < terms.absent_seconds

    def is_kept(self, name: str) -> bool:
        """Return whether a value is kept, fresh or not."""
        return any(manager.exists(self.prefix + name) for manager in self._places(name))

    def is_near(self, name: str) -> bool:
        """Return whether `look_up` reads from no disk."""
        found = [is_in_ram(manager, self.prefix + name) for manager in self._places(name)]
        return True in found or False not in found

    def _places(self, name: str) -> tuple[MemoryManager, ...]:
        """Return the managers that may have a value, the one to ask first."""
        if self.writes_here():
            return (self.manager,)
        if self._hides_all or name in self._hidden:
            return (self.target,) if self._worker_memory else ()
        return (self.manager,) if self._worker is None else (self._worker, self.manager)

    def tag_of_parts(self, key: str, tag: str | None) -> str | None:
        """Return the tag of the parts that are kept of an object; note `tag` if it is the same."""
        found = self._tags_of_parts.get(key)
        known = None if found is None else found[0]
        if tag is not None:
            known = known or self._kept_tag(key)
            if known in (None, tag):
                self.set_tag_of_parts(key, tag)
        return known

    def _kept_tag(self, key: str) -> str | None:
        """Return the tag of a part that an earlier process has kept."""
        prefix = f"{self.prefix}part/{key}/"
        first = next(self.manager.scan(prefix), None) if self._has_parts else None
        return None if first is None else self.tag_of(first[len(self.prefix) :])

    def set_tag_of_parts(self, key: str, tag: str | None) -> None:
        """Note the tag of the parts of an object that are kept from now on."""
        if tag is None:
            self._tags_of_parts.pop(key)
        else:
            self._tags_of_parts.set(key, (tag, self.now()))

    def version(self, key: str, terms: KeepTerms) -> str | None:
        """Return the version of what may be served of an object; None if there is none."""
        name = self.name_of(key)
        for manager in self._places(name):
            try:
                version = manager._hierarchy.lookup(self.prefix + name).version
            except KeyNotFoundError:
                continue
            return str(version) if self._is_fresh(name, terms) else None
        tag, checked = self._tags_of_parts.get(key) or (None, 0.0)
        if tag is None or (terms.max_age is not None and self.now() - checked >= terms.max_age):
            return None
        return hashlib.sha256(tag.encode()).hexdigest()[:16]

    def _is_fresh(self, name: str, terms: KeepTerms) -> bool:
        if terms.max_age is None:
            return True
        checked = self._checked.get(name)
        return checked is not None and self._clock.monotonic() - checked < terms.max_age

    def tag_of(self, name: str) -> str | None:
        """Return the tag that the source gave the object that is kept; None without one."""
        for manager in self._places(name):
            try:
                tag = manager.info(self.prefix + name).metadata.get("tag")
            except KeyNotFoundError:
                continue
            return tag if isinstance(tag, str) else None
        return None

    def begin_fetch(self, key: str, name: str) -> tuple[Fetch, bool]:
        """Return the request in progress for `name`, and True if the caller must send it."""
        with self._lock:
            fetch = self._fetches.get(name)
            if fetch is not None:
                return fetch, False
            outdated = any(writing.covers(key) for writing in self._writings)
            fetch = self._fetches[name] = Fetch(key, name, self.now(), outdated=outdated)
            return fetch, True

    def checked_ago(self, name: str) -> float:
        """Return how many seconds ago the source was asked for what is kept under `name`."""
        checked = self._checked.get(name)
        return float("inf") if checked is None else self.now() - checked

    def confirm(self, fetch: Fetch) -> None:
        """Note that the source has the object as it is kept."""
        with self._stripe(fetch.key):
            if not fetch.outdated:
                self._checked.set(fetch.name, self._clock.monotonic())
                if fetch.name.startswith("part/"):
                    tag = self.tag_of(fetch.name)
                    self.set_tag_of_parts(fetch.key, tag)

    def keep(
        self,
        fetch: Fetch,
        content: bytes | None,
        tag: str | None,
        asked: float,
        terms: KeepTerms,
    ) -> None:
        """Keep what the source answered to a request that was sent at the time `asked`.

        Nothing is kept where the object was written meanwhile, or where there is no room.
        """
        with self._stripe(fetch.key):
            if fetch.outdated:
                return
            if content is None:
                self._drop(fetch.name)
                self._absent.set(fetch.name, asked)
                return
            self._absent.pop(fetch.name)
            if not self.keeps:
                self._drop(fetch.name)
                return
            self._store(fetch.name, content, tag, asked, terms.tier)

    def now(self) -> float:
        """Return the time, for `keep`."""
        return self._clock.monotonic()

    def end_fetch(self, fetch: Fetch, content: bytes | memoryview | None) -> None:
        """Give the result to the callers that wait for it."""
        self._forget_fetch(fetch)
        fetch.future.set_result(content)

    def fail_fetch(self, fetch: Fetch, error: BaseException) -> None:
        """Give a failure to the callers that wait; if the call was cancelled, one of them fetches.

        A call that ended already is left as it is.
        """
        self._forget_fetch(fetch)
        if not fetch.future.done():
            failure = error if isinstance(error, Exception) else AbandonedError()
            fetch.future.set_exception(failure)
            fetch.future.exception()  # Perhaps no caller waits.

    def give_up(self, fetch: Fetch) -> None:
        """Wait no longer for a request that does not end: the next caller sends its own."""
        self._forget_fetch(fetch)

    def _forget_fetch(self, fetch: Fetch) -> None:
        with self._lock:
            if self._fetches.get(fetch.name) is fetch:
                del self._fetches[fetch.name]

    @contextmanager
    def writing(self, key: str, *, is_folder: bool = False) -> Iterator[Writing]:
        """Write an object of the source in the body, or all whose names begin with `key`."""
        writing = self.begin_writing(key, is_folder=is_folder)
        try:
            yield writing
        finally:
            self.end_writing(writing)

    def begin_writing(self, key: str, *, is_folder: bool = False) -> Writing:
        """Drop what is kept of an object, before it is written; call `end_writing` afterwards.

        A crash in between leaves nothing old, and what is read meanwhile is not kept.

        Raises:
            ClosedError: the manager is closed, so that what is on its disk cannot be dropped.
        """
        require_readable(self.manager._hierarchy.state)
        writing = Writing(key, is_folder=is_folder)
        with self._lock:
            for other in self._writings:
                if other.covers(key) or writing.covers(other.key):
                    other.alone = writing.alone = False
            self._writings = [*self._writings, writing]
        try:
            self._outdate_fetches(writing)
            self._hides_all = not self.writes_here()
            if is_folder:
                for stripe in self._stripes:
                    with stripe:
                        pass  # What was fetched before is kept by now, and dropped below.
                for kind in ("whole", "part"):
                    self.drop_folder(f"{kind}/{key}")
            else:
                self.drop_object(key)
        except BaseException:
            self.end_writing(writing)
            raise
        return writing

    def end_writing(self, writing: Writing) -> None:
        """Keep again what is read of the object from now on. It may be called by a destructor."""
        with self._lock:
            self._outdate_fetches(writing)
            self._writings = [one for one in self._writings if one is not writing]

    def replace(self, writing: Writing, content: bytes, terms: KeepTerms) -> None:
        """Keep what was written, unless another call wrote at the same time."""
        self._outdate_fetches(writing)
        with self._stripe(writing.key):
            # A write that begins now waits for the stripe, and then drops what is stored here.
            if writing.alone and self.keeps:
                self._store(self.name_of(writing.key), content, None, self.now(), terms.tier)

    def _outdate_fetches(self, writing: Writing) -> None:
        """Keep nothing of the requests in progress; later readers get none of their results."""
        with self._lock:
            for fetch in [one for one in self._fetches.values() if writing.covers(one.key)]:
                fetch.outdated = True
                del self._fetches[fetch.name]

    def drop_object(self, key: str) -> None:
        """Drop what is kept of an object, whole or in parts."""
        with self._stripe(key):
            self._drop(self.name_of(key))
            self._tags_of_parts.pop(key)
            if self._has_parts:
                self.drop_folder(f"part/{key}/")

    def drop_folder(self, name: str) -> None:
        """Drop all that is kept under names that begin with `name`."""
        for absent in [one for one in self._absent if one.startswith(name)]:
            self._absent.pop(absent)
        if self.keeps:
            self.target.delete_prefix(self.prefix + name)

    def _stripe(self, key: str) -> Any:
        """Return the lock of the objects of one stripe: keeping and dropping exclude each other."""
        return self._stripes[hash(key) % STRIPES]

    def _drop(self, name: str) -> None:
        self._absent.pop(name)
        self._checked.pop(name)
        if not self.writes_here():
            self._hidden.add(name)
        if not self.keeps:
            return
        try:
            self.target.delete(self.prefix + name)
        except KeyNotFoundError:
            pass  # It was not kept, or was evicted.

    def _store(
        self, name: str, content: bytes, tag: str | None, asked: float, tier: TierName | None
    ) -> None:
        """Store a value that may be evicted; on the disk as well, if the manager outlives this."""
        services = self.target._services
        if not self.writes_here():
            self._hidden.add(name)  # If it is evicted, an older one must not come back.
        terms = make_terms(
            ttl=None,
            metadata=None if tag is None else {"tag": tag},
            pin=False,
            min_tier=None,
            max_tier=None,
            now=self._clock.wall,
        )
        key = self.prefix + name
        if name.startswith("part/"):
            self._has_parts = True
        try:
            services.hierarchy.put(
                key,
                services.payload_of(key, content),
                tier=tier,
                terms=msgspec.structs.replace(terms, evictable=True),
            )
        except (TierFullError, BusyError, ForkedError):
            self._drop(name)  # There is no room: what was kept before must not be served either.
            return
        self._checked.set(name, asked)
        if tier is None and services.saves_at_end:
            services.write_behind.request(key)

    def _after_fork(self) -> None:
        """Forget the requests of the parent: their threads and event loops are not here."""
        self._fetches.clear()
        self._writings = []
        self._worker = None


def shared_read_through(
    token: str, manager: MemoryManager, prefix: str, identity: str, worker_memory: int
) -> ReadThrough:
    """Return the one that all adapters of this process share: a write of one is seen by all.

    Args:
        token: The name of the manager in this process.
        manager: The manager.
        prefix: What its keys begin with.
        identity: What the source is.
        worker_memory: Bytes of RAM for what is fetched where `manager` only reads.
    """
    name = (token, folder(prefix), identity)
    with _workers_lock:
        kept = _shared.get(name)
        if kept is None:
            kept = ReadThrough(manager, prefix, identity=identity, worker_memory=worker_memory)
            _shared[name] = kept
            if not kept.writes_here():
                _recent.append(kept)
        return kept


def worker_for(token: str, memory: int) -> MemoryManager:
    """Return the manager, in RAM, that a worker uses in the place of one that it cannot open."""
    with _workers_lock:
        for name, manager in _workers:
            if name == token:
                return manager
        _workers.append((token, worker_manager(memory)))
        return _workers[-1][1]


def worker_manager(memory: int) -> MemoryManager:
    """Return a manager in RAM; what has no room there is dropped."""
    return MemoryManager("1 kB", f"{max(memory, 1000)} B", "1 MB", migration=False, prefetch="off")


_workers_lock = new_lock()
_workers: deque[tuple[str, MemoryManager]] = deque(maxlen=READERS_KEPT)
# By the manager, whose end it does not delay: it refers to nothing of it.
_known: weakref.WeakKeyDictionary[Lifecycle, BoundedDict[tuple[str, str], Known]]
_known = weakref.WeakKeyDictionary()
_known_lock = new_lock()
_shared: weakref.WeakValueDictionary[tuple[str, str, str], ReadThrough]
_shared = weakref.WeakValueDictionary()
# Tasks of a worker bring an adapter along each time, and drop it at their end.
_recent: deque[ReadThrough] = deque(maxlen=READERS_KEPT)
_all: weakref.WeakSet[ReadThrough] = weakref.WeakSet()
after_fork(_all, ReadThrough._after_fork)
