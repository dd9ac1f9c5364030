"""One writer per prefix, by a lease: a small object that only its holder may rewrite.

Objects are never overwritten, so a writer that has lost its lease harms nothing. The age of a lease
is the difference of two times of the store itself: the clocks of the machines need not be right.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable

import msgspec

from memories.backends.bucket.objectstore import Absent, Conflict, ObjectStore
from memories.errors import StoreLockedError, UnavailableError
from memories.foundation.clock import SystemClock
from memories.foundation.fork_lock import new_lock
from memories.foundation.system import PROC, boot_id

LEASE_SECONDS = 60.0
LOCK_NAME = "lock/writer"
_NOW = "lock/now"
_MARGIN_SECONDS = 5.0  # Stores round their times to seconds.
_ROUNDS = 5


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """What the lock object says."""

    store: str  # The id of the store that writes.
    session: str  # One opening of it.
    epoch: int  # Counts the stores that wrote here, one after the other.
    begins: dict[int, int] = {}  # The first object sequence of each epoch but the first.
    host: str = ""
    boot: str = ""  # Which start of the host; a process id means nothing on another.
    pid: int = 0
    started: int = 0  # When the process began, so that a reused id is not taken for it.
    seconds: float = LEASE_SECONDS
    renewals: int = 0  # So that no two states of the object look alike.
    version: int = 0  # The highest that the store has given, archived or not; the next one goes on.
    released: bool = False


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Lease).decode


class WriterLease:
    """The right to write under a prefix. Every method may be called from any thread."""

    def __init__(
        self,
        store: ObjectStore,
        identity: str,
        seconds: float = LEASE_SECONDS,
        version: Callable[[], int] = lambda: 0,
    ) -> None:
        self._store = store
        self._version = version
        self._seconds = seconds
        self._lock = new_lock()
        self._tag: str | None = None
        self._renewed = 0.0
        self._lost = False
        self.unconditional = False  # Whether the store ignores conditions: then one looks first.
        self.lease = Lease(
            store=identity,
            session=secrets.token_hex(8),
            epoch=0,
            host=socket.gethostname(),
            boot=boot_id(),
            pid=os.getpid(),
            started=_started(os.getpid()),
            seconds=seconds,
        )

    def acquire(self, *, takeover: bool = False, wrote: bool = False) -> Lease | None:
        """Take the lease and return the one before it, or None where there was none.

        `wrote` says that this store has written there before.

        Raises:
            StoreLockedError: another store holds it, and is not known to be gone.
            UnavailableError: there is none although this store `wrote` there: a directory that is
                not mounted looks like that.
        """
        for _ in range(_ROUNDS):
            found, tag = self._read(takeover=takeover)
            if found is None and wrote and not takeover:
                raise self._emptied()
            if found is not None and not takeover:
                self._refuse_living(found)
            same = found is not None and found.store == self.lease.store
            epoch = 1 if found is None else found.epoch + (not same)
            begins = {} if found is None else found.begins
            version = 0 if found is None else found.version
            self.lease = msgspec.structs.replace(
                self.lease, epoch=epoch, begins=begins, version=version
            )
            try:
                self._write(tag)
            except (Conflict, Absent):
                if self._is_ours():
                    return found
                continue
            return found
        raise StoreLockedError(
            f"several stores want to write to {self._store.url} at once: try again"
        )

    def holder(self) -> Lease | None:
        """Return the lease as it is in the bucket, or None."""
        return self._read()[0]

    def begins(self) -> dict[int, int]:
        """Return the first object sequence of each epoch, as the lock object says."""
        found, _ = self._read()
        return {} if found is None else found.begins

    def begin_epoch(self, sequence: int) -> None:
        """Record that objects of earlier writers from `sequence` on came too late to count."""
        with self._lock:
            begins = {**self.lease.begins, self.lease.epoch: sequence}
            self.lease = msgspec.structs.replace(self.lease, begins=begins)
        self.renew()

    def ensure(self) -> None:
        """Return at once while the lease is fresh, after a renewal when it is not.

        Raises:
            StoreLockedError: another store has taken it.
        """
        if self._lost or time.monotonic() - self._renewed > self._seconds / 2:
            self.renew()

    def renew(self) -> None:
        """Rewrite the lease.

        Raises:
            StoreLockedError: another store has taken it.
            UnavailableError: there is none any more.
        """
        with self._lock:
            if not self._lost and self.unconditional:
                self._lost = not self._is_ours()
            if not self._lost:
                try:
                    self._write(self._tag)
                except (Conflict, Absent):
                    if self._read()[0] is None:
                        raise self._emptied() from None
                    self._lost = not self._is_ours()
            if self._lost:
                raise StoreLockedError(
                    f"another store has become the writer of {self._store.url} after the lease of "
                    "this one had ended, or by takeover=True: open it again"
                )

    def release(self) -> None:
        """Give the lease back, if it is still ours."""
        with self._lock:
            if self._tag is None or self._lost:
                return
            self.lease = msgspec.structs.replace(self.lease, released=True)
            try:
                self._write(self._tag)
            except (Conflict, Absent):
                # Someone has taken it meanwhile, so this store has nothing to give back.
                self._tag = None

    def _emptied(self) -> UnavailableError:
        return UnavailableError(
            f"the archive {self._store.url} contains no {LOCK_NAME}, and this store has written "
            "there: is it mounted, and the URL the right one? If it was emptied on purpose, open "
            "it once with takeover=True"
        )

    def _write(self, tag: str | None) -> None:
        version = max(self.lease.version, self._version())
        self.lease = msgspec.structs.replace(
            self.lease, renewals=self.lease.renewals + 1, version=version
        )
        asked = time.monotonic()  # Before the request: the lease is not longer than others think.
        self._tag = self._store.put_if(LOCK_NAME, _encode(self.lease), tag)
        self._renewed = asked

    def _read(self, *, takeover: bool = False) -> tuple[Lease | None, str | None]:
        try:
            data, tag = self._store.get(LOCK_NAME)
        except Absent:
            return None, None
        try:
            return _decode(data), tag
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            if takeover:
                # Which epoch it named is lost; the seconds of now are more than any count so far.
                return Lease(store="", session="", epoch=int(SystemClock().wall())), tag
            raise StoreLockedError(
                f"the lock of {self._store.url} ({LOCK_NAME}) cannot be read: if no other store "
                "writes there, open it once with takeover=True"
            ) from error

    def _is_ours(self) -> bool:
        # A try that timed out may have succeeded; its conflict is then with ourselves.
        found, tag = self._read()
        if found is None or found.session != self.lease.session:
            return False
        self._tag, self._renewed = tag, time.monotonic()
        return True

    def _refuse_living(self, found: Lease) -> None:
        if found.released or found.store == self.lease.store or self._is_dead(found):
            return
        age = self._age()
        if age <= found.seconds + _MARGIN_SECONDS:
            raise StoreLockedError(
                f"the archive {self._store.url} is being written by process {found.pid} on "
                f"{found.host}, whose lease is {age:.0f} s old: close it there; if it has died, "
                f"its lease ends after {found.seconds:.0f} s"
            )

    def _is_dead(self, found: Lease) -> bool:
        here = found.boot != "" and (found.host, found.boot) == (self.lease.host, self.lease.boot)
        return here and _started(found.pid) != found.started

    def _age(self) -> float:
        """Return how old the lease is, by the store's own clock."""
        self._store.put(_NOW, [b"now"])  # It stays: not all credentials that may write may delete.
        times = {stat.name: stat.modified for stat in self._store.list("lock/")}
        return max(0.0, times.get(_NOW, 0.0) - times.get(LOCK_NAME, 0.0))


def _started(pid: int) -> int:
    """Return when a process began, in ticks since the boot; 0 for one that is not there."""
    try:
        return int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0
