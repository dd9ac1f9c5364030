"""The part that this process has in a shared store: its writer, or a client of the writer.

The process that gets the lock of the store is the writer. The lock ends with it, so a process that
finds no writer becomes one, and no two can.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memories.core.manager import MemoryManager
from memories.errors import (
    ClosedError,
    MemoriesError,
    StoreLockedError,
    UnavailableError,
)
from memories.foundation.clock import SystemClock
from memories.foundation.fork_lock import new_lock
from memories.foundation.forks import after_fork
from memories.foundation.periodic import Latch
from memories.frames.signing import Keyring
from memories.sharing.client import Client
from memories.sharing.computation_locks import ComputationLocks
from memories.sharing.messages import LostError, RetiredError
from memories.sharing.server import Server
from memories.sharing.service import READS, Service

_monotonic = SystemClock.monotonic
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1  # Seconds between two tries to find a writer.


class Membership:
    """What all shared managers of one store in this process have in common.

    Args:
        directory: The directory of the store.
        options: How this process opens the store if it becomes the writer.
        wait_seconds: How long a call waits for the writer, and for a new one.
        compute_seconds: How long it waits for a result that another process computes.
    """

    def __init__(
        self,
        directory: Path,
        options: Mapping[str, Any],
        wait_seconds: float,
        compute_seconds: float,
    ) -> None:
        self.directory = directory
        self.options = dict(options)
        self.seconds = wait_seconds
        self._lock = new_lock()
        self._part: Service | Client | None = None
        self._users = 0
        self._compute_seconds = compute_seconds
        self.locks = ComputationLocks(directory, compute_seconds, wait_seconds)
        self._inherited: list[object] = []  # What a parent still uses; it must not end here.
        _all.add(self)

    @property
    def is_writer(self) -> bool:
        """Return whether this process has the store open."""
        return isinstance(self._part, Service)

    @property
    def trust(self) -> Keyring:
        """Return the keys of the store."""
        return self._joined().trust

    def enter(self) -> None:
        """Count a manager more, and take part."""
        with self._lock:
            if not self._users:
                self.locks = ComputationLocks(self.directory, self._compute_seconds, self.seconds)
            self._users += 1
        self._joined()

    def leave(self, *, flush: bool) -> None:
        """Count a manager less; the last one ends the part of this process."""
        with self._lock:
            self._users -= 1
            if self._users > 0:
                return
            part, self._part = self._part, None
        self.locks.close()
        if isinstance(part, Service):
            part.manager.cleanup(flush=flush)  # Its server retires first.
        elif part is not None:
            part.close()

    def call(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return what a call on the manager of the store returns, wherever that is.

        Raises:
            UnavailableError: the writer was killed during a change, which may be done or not.
            StoreLockedError: no process answers, and the store cannot be opened.
            MemoriesError: what the call raises.
        """
        while True:
            part = self._joined()
            try:
                return part.call(name, args, kwargs)
            except RetiredError:
                self._drop(part)
            except LostError as error:
                self._drop(part)
                if name not in READS:
                    raise UnavailableError(
                        f"the process that had {self.directory} open ended during {name}: it may "
                        "be done or not; read the value, or call it again"
                    ) from error
            except ClosedError:
                if not isinstance(part, Service) or self._users < 1:
                    raise
                self._drop(part)  # Other code of this process has closed the store.

    def _joined(self) -> Service | Client:
        part = self._part
        if part is not None:
            return part
        with self._lock:
            if self._users < 1:
                raise ClosedError(f"this manager of {self.directory} is closed")
            if self._part is None:
                self._part = self._join()
            return self._part

    def _drop(self, part: Service | Client) -> None:
        """Forget a part that has ended; the next call takes part anew."""
        with self._lock:
            if self._part is part:
                self._part = None
        if isinstance(part, Client):
            part.close()

    def _join(self) -> Service | Client:
        give_up = _monotonic() + self.seconds
        pause = _FIRST_PAUSE
        while True:
            try:
                return self._open()
            except StoreLockedError as locked:
                try:
                    return self._ask()
                except (OSError, MemoriesError) as error:
                    if _monotonic() > give_up:
                        raise StoreLockedError(
                            f"{locked}, and that process does not answer others ({error}): open "
                            "it as a SharedMemoryManager everywhere"
                        ) from error
            _pause.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _open(self) -> Service:
        manager = MemoryManager(storage_path=self.directory, write_through=True, **self.options)
        try:
            service = Service(manager, self.directory)
            server = Server(service, self.directory)
        except BaseException:
            manager.cleanup()
            raise
        manager._lifecycle.ends_before(server.stop, "answers to other processes")
        return service

    def _ask(self) -> Client:
        names = (
            "trusted_keys", "glacier_url", "storage_options", "glacier_memory_enabled",
            "encryption",
        )  # fmt: skip
        options = {name: self.options[name] for name in names if name in self.options}
        reader = MemoryManager(storage_path=self.directory, read_only=True, **options)
        try:
            return Client(reader, self.directory, self.seconds)
        except BaseException:
            reader.cleanup()
            raise

    def _in_child(self) -> None:
        """Take part anew in a forked child: it is another process for the writer."""
        part, self._part = self._part, None
        if part is not None:
            self._inherited.append(part)


def membership_of(
    directory: Path, options: Mapping[str, Any], wait_seconds: float, compute_seconds: float
) -> Membership:
    """Return the one part that this process has in a store.

    Raises:
        StoreLockedError: it takes part with other options.
    """
    directory = Path(os.path.abspath(directory))  # noqa: PTH100  # Links stay as they are.
    with _registry:
        known = _by_directory.get(directory)
        if known is None:
            known = _by_directory[directory] = Membership(
                directory, options, wait_seconds, compute_seconds
            )
        elif known.options != dict(options):
            raise StoreLockedError(
                f"{directory} is shared in this process already, with other options: use the same"
            )
        return known


_pause = Latch()  # Never set: it only waits.
_registry = new_lock()
_by_directory: weakref.WeakValueDictionary[Path, Membership] = weakref.WeakValueDictionary()
_all: weakref.WeakSet[Membership] = weakref.WeakSet()
after_fork(_all, Membership._in_child)
