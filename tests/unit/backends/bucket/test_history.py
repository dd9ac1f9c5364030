"""Random histories: the archive, its reopened self and a fresh machine agree with a dictionary.

The dictionary is the oracle. What must hold at any time: nothing acknowledged is lost, nothing that
was overwritten or removed comes back, on this machine and on one that has only the bucket.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.support.buckets.kit import WatchedStore, frame, record

from memories.backends.bucket import BucketBackend, BucketLimits
from memories.backends.bucket.directory import DirectoryStore
from memories.backends.bucket.seal import ArchiveSeal
from memories.sealing.master_key import EncryptionKey, create_file

KEYS = st.sampled_from(["a", "b", "c/1", "c/2", "é"])
SIZES = st.sampled_from([1, 70, 700, 3000])
DAY = 86400.0


class Crash(Exception):
    """The process ends here."""


class History(RuleBasedStateMachine):
    """Writes, removals, clears, reclamation, crashes, and looks from other machines."""

    encrypted = False

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="history-"))
        self.store = WatchedStore(DirectoryStore(self.root / "bucket"))
        self.master = None
        if self.encrypted:
            create_file(self.root / "key", "test")
            self.master = EncryptionKey.from_file(self.root / "key")
        self.now = 1000.0
        self.version = 0
        self.truth: dict[str, tuple[int, bytes]] = {}
        keys = ["a", "b", "c/1", "c/2", "é"]
        self.past: dict[str, list[int | None]] = {key: [None] for key in keys}
        self.seen = dict.fromkeys(self.past, 0)  # How far the history of a key was seen elsewhere.
        self.pinned: dict[str, tuple[bytes, bytes]] = {}
        self.backend: BucketBackend = self.opened("home")

    def opened(self, home: str, *, takeover: bool = False) -> BucketBackend:
        limits = BucketLimits(
            small_bytes=1000, pack_bytes=2500, grace_seconds=7 * DAY, flush_seconds=3600
        )
        return BucketBackend(
            self.store,
            directory=self.root / home,
            takeover=takeover,
            limits=limits,
            wall=lambda: self.now,
            encryption=self.master,
        )

    def elsewhere(self) -> BucketBackend:
        return BucketBackend(
            self.store, read_only=True, wall=lambda: self.now, encryption=self.master
        )

    def stored(self, nbytes: int) -> int:
        """Return how long a frame is on the medium."""
        return ArchiveSeal.frame_length(nbytes) if self.encrypted else nbytes

    @rule(key=KEYS, size=SIZES)
    def write(self, key: str, size: int) -> None:
        self.version += 1
        data = f"{key}{self.version}".encode() * size
        kept = self.backend.write(record(key, self.version, size), frame(data[:size]))
        self.truth[key] = (self.version, data[:size])
        self.became(key, self.version)
        assert data[:size] == bytes(self.backend.read(kept))

    @rule(key=KEYS)
    def remove(self, key: str) -> None:
        self.version += 1
        self.backend.remove(key, self.version)
        if self.truth.pop(key, None):
            self.became(key, None)

    @rule(key=KEYS)
    def write_late(self, key: str) -> None:
        """A move of an old version that lost its race."""
        if key in self.truth and self.truth[key][0] > 1:
            self.backend.write(record(key, self.truth[key][0] - 1, 5), frame(b"stale"))

    @rule(purge=st.booleans())
    def clear(self, purge: bool) -> None:
        self.backend.clear(self.version, purge=purge)
        for key in self.truth:
            self.became(key, None)
        self.truth.clear()

    @rule(days=st.sampled_from([0, 1, 8]))
    def reclaim(self, days: float) -> None:
        self.now += days * DAY
        self.backend.reclaim()

    @rule()
    def purge(self) -> None:
        self.backend.reclaim(grace_seconds=0)

    @rule()
    def sync(self) -> None:
        self.backend.sync()

    @rule()
    def sum_up(self) -> None:
        self.backend._maintenance.collector.write_manifests(least=1)

    @rule(key=KEYS)
    def protect(self, key: str) -> None:
        found = self.backend.lookup(key)
        if found is not None and key not in self.pinned:
            self.backend.protect(found.place, holder=key)
            self.pinned[key] = (found.place, bytes(self.backend.read(found)))

    @rule(key=KEYS)
    def unprotect(self, key: str) -> None:
        if self.pinned.pop(key, None):
            self.backend.unprotect(holder=key)

    @rule()
    def close_and_open(self) -> None:
        self.backend.close()
        self.backend = self.opened("home")

    @rule()
    def crash_and_open(self) -> None:
        """The process is gone: nothing is flushed, no lease given back."""
        abandon(self.backend)
        self.backend = self.opened("home")

    @rule(arrived=st.booleans())
    def crash_in_an_upload_and_open(self, arrived: bool) -> None:
        """A put arrives whole or not at all, but its process may have died before the answer."""

        def die(action: str, name: str = "") -> None:
            if action == "put" or arrived:
                raise Crash

        if arrived:
            self.store.after = die
        else:
            self.store.fault = die
        try:
            self.backend.sync()
        except Crash:
            self.behave()
            self.crash_and_open()
        finally:
            self.behave()

    def behave(self) -> None:
        self.store.fault = lambda action, name: None
        self.store.after = lambda name: None

    @rule()
    def lose_the_machine(self) -> None:
        """Only the bucket is left; it had received everything."""
        self.backend.sync()
        abandon(self.backend)
        shutil.rmtree(self.root / "home")
        self.backend = self.opened("home", takeover=True)

    @invariant()
    def agrees_here(self) -> None:
        found = {
            one.key: (one.version, bytes(self.backend.read(one))) for one in self.backend.scan()
        }
        assert self.truth == found
        usage = self.backend.usage()
        live = sum(self.stored(len(data)) for _, data in self.truth.values())
        assert (live, len(self.truth)) == (usage.live, usage.keys)
        for key, (place, data) in self.pinned.items():
            pinned = record(key, 0)
            assert data == bytes(self.backend.read(replace_place(pinned, place)))

    @rule()
    def agrees_elsewhere(self) -> None:
        self.backend.sync()
        elsewhere = self.elsewhere()
        assert self.truth == everything(elsewhere)
        assert [] == [problem for problem in self.backend.check() if problem.key]
        elsewhere.close()

    @rule()
    def never_goes_back_elsewhere(self) -> None:
        """Without a sync a fresh machine may miss the latest, but what was undone stays undone."""
        elsewhere = self.elsewhere()
        seen = {one.key: one.version for one in elsewhere.scan()}
        elsewhere.close()
        for key, past in self.past.items():
            later = past[self.seen[key] :]
            if seen.get(key) is not None or None in later:
                assert seen.get(key) in later, (key, past, self.seen[key], seen.get(key))
                self.seen[key] += later.index(seen.get(key))

    def became(self, key: str, version: int | None) -> None:
        """Note the newest state of a key."""
        self.past[key].append(version)

    def teardown(self) -> None:
        self.backend.close()
        shutil.rmtree(self.root)


def everything(backend: BucketBackend) -> dict[str, tuple[int, bytes]]:
    return {one.key: (one.version, bytes(backend.read(one))) for one in backend.scan()}


def abandon(backend: BucketBackend) -> None:
    """Stop a backend as a kill would: it sends no last message."""
    backend._maintenance.stop()
    backend._closed = True
    backend._release()


def replace_place(one, place: bytes):  # type: ignore[no-untyped-def]
    import msgspec

    return msgspec.structs.replace(one, place=place)


class EncryptedHistory(History):
    """The same of an archive that is encrypted."""

    encrypted = True


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
TestEncryptedHistory = EncryptedHistory.TestCase
TestEncryptedHistory.settings = settings(max_examples=8, stateful_step_count=30, deadline=None)
