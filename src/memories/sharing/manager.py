"""The manager that any number of processes have of one store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from memories.core.key_info import KeyInfo
from memories.core.memoize import memoize
from memories.core.value_reader import MISSING
from memories.core.views import StoreMapping
from memories.errors import ClosedError, ConflictError, InvalidOptionError, KeyNotFoundError
from memories.foundation.keys import check_key
from memories.model.tiers import StoreTier, TierChoice
from memories.options.settings import check_seconds
from memories.sharing.membership import membership_of
from memories.sharing.results import SharedResultStore
from memories.sharing.service import PAGE

T = TypeVar("T")
_DECIDED = ("read_only", "takeover", "write_through", "storage_path")


class SharedMemoryManager(StoreMapping):
    """A store that several processes of one machine and one user write.

    The first process that opens it becomes the writer, and has the tiers; the others send it their
    calls through a Unix socket in the directory of the store. When the writer ends or is killed,
    the next call of any other process takes over. No server has to be started or stopped.

    What a call has stored is on the disk when it returns (`write_through=True`), so that it
    survives the end of any process. All processes see it at once.

    Usable from any number of threads, after a fork, and as an argument of a worker process.

    Args:
        storage_path: The directory of the store, on a local disk.
        wait_seconds: How long a call waits for an answer, or for a new writer.
        compute_seconds: How long a call of a cached function waits while another process computes
            the same result; then it computes it, too. Within another such call, which the other
            process could wait for, it is no longer than `wait_seconds`.
        options: Options of `MemoryManager`; those of the process that is the writer are in force.

    Raises:
        InvalidOptionError: an option is invalid.
        StoreLockedError: a process has the store open and does not share it.
        StorageError: the directory cannot be used.
    """

    def __init__(
        self,
        storage_path: str | os.PathLike[str],
        *,
        wait_seconds: float = 30.0,
        compute_seconds: float = 600.0,
        **options: Any,
    ) -> None:
        for name in _DECIDED:
            if name in options:
                raise InvalidOptionError(f"{name}= cannot be chosen for a shared store")
        seconds = {"wait_seconds": wait_seconds, "compute_seconds": compute_seconds}
        for name, value in seconds.items():
            if check_seconds(name, value) is None:
                raise InvalidOptionError(f"{name}=None must be a positive number of seconds")
        self._arguments = (os.fspath(storage_path), options | seconds)
        self._membership = membership_of(Path(storage_path), options, **seconds)
        self._membership.enter()
        self._closed = False

    @property
    def is_writer(self) -> bool:
        """Return whether this process has the store open, and answers the others."""
        return self._membership.is_writer

    @property
    def path(self) -> Path:
        """Return the directory of the store."""
        return self._membership.directory

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if self._closed:
            raise ClosedError(f"this manager of {self.path} is closed")
        return self._membership.call(name, args, kwargs)

    def store(self, key: str, data: Any, tier: StoreTier = "auto", **options: Any) -> None:
        """Store a value under `key`, as `MemoryManager.store` does, with the same options.

        Raises:
            UnavailableError: the writer was killed meanwhile; the value may be stored or not.
            MemoriesError: what `MemoryManager.store` raises.
        """
        self._call("store", check_key(key), data, tier, **options)

    def retrieve(self, key: str, default: Any = MISSING, **options: Any) -> Any:
        """Return the value of `key`, as `MemoryManager.retrieve` does, or `default` if given.

        Raises:
            KeyNotFoundError: the key is absent and there is no default.
        """
        try:
            return self._call("retrieve", check_key(key), **options)
        except KeyNotFoundError:
            if default is MISSING:
                raise
            return default

    def delete(self, key: str) -> None:
        """Remove `key`; KeyNotFoundError if it is absent."""
        self._call("delete", check_key(key))

    def exists(self, key: str) -> bool:
        """Return whether `key` is in any tier."""
        return bool(self._call("exists", check_key(key)))

    def store_many(self, mapping: Mapping[str, Any], tier: StoreTier = "auto") -> None:
        """Store many values in one call."""
        self._call("store_many", dict(mapping), tier)

    def retrieve_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return the values of those `keys` that are present, in one call."""
        found: dict[str, Any] = self._call("retrieve_many", list(keys))
        return found

    def modify(self, key: str, fn: Callable[[Any], T]) -> T:
        """Replace the value of `key` by `fn(value)`, atomically for all processes.

        `fn` is called again if another process was faster.

        Raises:
            KeyNotFoundError: the key is absent.
        """
        while True:
            value, version = self._call("read", check_key(key))
            if not version:
                raise KeyNotFoundError(f"{key[:200]!r} is in no tier")
            changed = fn(value)
            try:
                self._call("store", key, changed, if_version=version)
            except ConflictError:
                continue
            return changed

    def pop(self, key: str, default: Any = MISSING) -> Any:
        """Remove `key` and return its value, or `default` if it is absent."""
        try:
            return self._call("pop", check_key(key))
        except KeyNotFoundError:
            if default is MISSING:
                raise
            return default

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`; store `default` first if it is absent."""
        return self._call("setdefault", check_key(key), default)

    def get_tier(self, key: str) -> str:
        """Return the tier of `key` in the process that is the writer."""
        tier: str = self._call("get_tier", check_key(key))
        return tier

    def info(self, key: str) -> KeyInfo:
        """Return what is known of `key` without its value."""
        known: KeyInfo = self._call("info", check_key(key))
        return known

    def scan(self, prefix: str = "", delimiter: str | None = None) -> Iterator[str]:
        """Yield the keys that start with `prefix`, in order; see `MemoryManager.scan`."""
        after = ""
        while True:
            page = self._call("page", prefix, delimiter, after)
            yield from page
            if len(page) < PAGE:
                return
            after = page[-1]

    def find(self, **metadata: Any) -> Iterator[str]:
        """Yield the keys with these metadata."""
        yield from self._call("found", metadata)

    def delete_many(self, keys: Iterable[str]) -> int:
        """Remove those `keys` that are present, and return how many there were."""
        return int(self._call("delete_many", list(keys)))

    def delete_prefix(self, prefix: str) -> int:
        """Remove every key that starts with `prefix`, and return how many there were."""
        return int(self._call("delete_prefix", prefix))

    def touch(self, key: str, ttl: float | None = None) -> None:
        """Take note that `key` is used now; with a ttl, it lives so long from now on."""
        self._call("touch", check_key(key), ttl)

    def set_terms(self, key: str, **terms: Any) -> None:
        """Change terms of `key` without its value; see `MemoryManager.set_terms`."""
        self._call("set_terms", check_key(key), **terms)

    def migrate(self, key: str, tier: TierChoice) -> None:
        """Move `key` to a tier."""
        self._call("migrate", check_key(key), tier)

    def pin(self, key: str) -> None:
        """Forbid moving and evicting `key`."""
        self._call("pin", check_key(key))

    def unpin(self, key: str) -> None:
        """Allow moving and evicting `key` again."""
        self._call("unpin", check_key(key))

    def resize(self, tier: TierChoice, size: float | str) -> None:
        """Change the size of a tier of the store; see `MemoryManager.resize`."""
        self._call("resize", tier, size)

    def clear(self) -> None:
        """Remove every key."""
        self._call("clear")

    def flush(self) -> None:
        """Wait until everything is on the disk."""
        self._call("flush")

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
        """Decorate a function so that all processes keep its results; see `MemoryManager.cache`.

        Of all threads and processes that need a result at the same time one computes it. If that
        process is killed, or cannot keep the result, the next one computes.
        """
        decorate = partial(
            memoize, self._results(), version=version, ignore=ignore, key=key, ttl=ttl, tier=tier
        )
        return decorate if function is None else decorate(function)

    def _results(self) -> SharedResultStore:
        """Return what keeps the results of decorated functions."""
        return SharedResultStore(self, self._membership)

    def __getitem__(self, key: str) -> Any:
        return self.retrieve(key)

    def __len__(self) -> int:
        return int(self._call("count"))

    def cleanup(self, *, flush: bool = True) -> None:
        """Close this manager. If this process is the writer, another one takes over. Idempotent."""
        if not self._closed:
            self._closed = True
            self._membership.leave(flush=flush)

    def close(self, *, flush: bool = True) -> None:
        """Do the same as `cleanup`."""
        self.cleanup(flush=flush)

    @property
    def closed(self) -> bool:
        """Return whether this manager has been closed."""
        return self._closed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cleanup()

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # It stands for a store, as other managers do.

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process it takes part in the same store."""
        return _open, self._arguments

    def __repr__(self) -> str:
        part = "closed" if self._closed else "writer" if self.is_writer else "asks the writer"
        return f"<SharedMemoryManager: {self.path}, {part}>"


def _open(path: str, arguments: dict[str, Any]) -> SharedMemoryManager:
    return SharedMemoryManager(path, **arguments)
