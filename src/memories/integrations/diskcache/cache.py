"""A cache with the interface of diskcache, kept in a store that several processes write."""

from __future__ import annotations

import functools
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from memories.core.value_reader import MISSING
from memories.errors import InvalidOptionError, InvalidOptionTypeError, KeyNotFoundError
from memories.integrations.diskcache.calls import arguments_key, name_of_function
from memories.integrations.diskcache.items import CLOCK, Items, Row
from memories.integrations.diskcache.keys import key_of, name_of
from memories.integrations.diskcache.queue import Queue
from memories.integrations.diskcache.settings import CacheSettings
from memories.options.settings import check_duration

_LARGE = 1 << 15


class Cache:
    """A cache on the disk with the interface of `diskcache.Cache`, for any number of processes.

    Values are typed and verified when they are read, and pickles only as the last resort, signed
    by the key of this user. `size_limit` is a hard limit. Values that are read often are in RAM.

    Args:
        directory: Where it lies; None for a new temporary directory.
        timeout: How long a change waits for one of another thread or process, in seconds.
        disk: Not used; only None, for values have formats of their own.
        settings: Settings of diskcache by their names; those of SQLite and of pickles have no
            effect. Others are options of `SharedMemoryManager`, such as `warm_memory_size`.

    Raises:
        InvalidOptionError: a setting is invalid.
        StorageError: the directory cannot be used.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        timeout: float = 60,
        disk: None = None,
        **settings: Any,
    ) -> None:
        if disk is not None:
            raise InvalidOptionError(
                f"disk={disk!r:.60}: there is no class of a disk here; register a codec for values "
                "of your own types"
            )
        if directory is None:
            directory = tempfile.mkdtemp(prefix="memories-diskcache-")
        if not isinstance(directory, str | os.PathLike):
            raise InvalidOptionTypeError(f"directory={directory!r:.60} must be a path, or None")
        self._directory = Path(os.path.expandvars(directory)).expanduser()
        self._timeout = check_duration("timeout", timeout)
        self._settings = CacheSettings(self._directory, settings)
        self._items = Items(self._directory, timeout, self._settings.options())
        self._hits = self._misses = 0
        _ = self._items.manager  # Errors are raised here, not at the first use.

    @property
    def directory(self) -> str:
        """The directory."""
        return str(self._directory)

    @property
    def timeout(self) -> float:
        """How long a change waits for another one, in seconds."""
        return self._timeout

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._settings[name]
        except KeyError:
            raise AttributeError(
                f"{type(self).__name__} has no attribute or setting {name!r}"
            ) from None

    def reset(self, key: str, value: Any = MISSING, update: bool = True) -> Any:
        """Change a setting, for later openings as well, and return it; without a value, return it.

        `size_limit` is in force at once; another `eviction_policy` when the cache is opened again.

        Raises:
            InvalidOptionError: there is no such setting, or the value is invalid.
        """
        if value is not MISSING:
            self._settings.change(key, value, keep=update)
            if key == "size_limit":
                for tier, size in self._settings.sizes().items():
                    self._items.manager.resize(tier, size)
        return self._settings[key]

    # Values

    def set(
        self,
        key: Any,
        value: Any,
        expire: float | None = None,
        read: bool = False,
        tag: Any = None,
        retry: bool = False,
    ) -> bool:
        """Store a value; a file if `read`, whose content is stored as bytes.

        Args:
            key: None, a number, text, bytes, a date, or a tuple or list of such.
            value: Any value that `MemoryManager.store` takes.
            expire: Seconds until it expires.
            read: Read the content of `value`, a file.
            tag: None, a number, text or bytes, for `evict`.
            retry: Wait for other changes however long they take.

        Returns:
            True.

        Raises:
            InvalidKeyError: the key cannot be given back.
            UnsupportedTypeError: the value cannot be stored.
        """
        name, kept = name_of(key)
        value = _content_of(value) if read else value
        with self._items.locked(retry):
            row = self._items.row(name)
            number = self._items.next_number() if row is None else row.number
            self._items.write(name, value, Row(number, tag, kept, _end_of(expire)))
        return True

    def __setitem__(self, key: Any, value: Any) -> None:
        self.set(key, value, retry=True)

    def add(
        self,
        key: Any,
        value: Any,
        expire: float | None = None,
        read: bool = False,
        tag: Any = None,
        retry: bool = False,
    ) -> bool:
        """Store a value unless the key is present; return whether it is stored."""
        with self._items.locked(retry):
            return key not in self and self.set(key, value, expire, read, tag, retry)

    def get(
        self,
        key: Any,
        default: Any = None,
        read: bool = False,
        expire_time: bool = False,
        tag: bool = False,
        retry: bool = False,
    ) -> Any:
        """Return a value, or `default`.

        With `read`, large bytes and text are returned as a file; with `expire_time` or `tag` a
        tuple with these behind the value.
        """
        name, _ = name_of(key)
        value = self._items.read(name)
        row = self._items.row(name) if expire_time or tag else None
        if self._settings["statistics"]:
            if value is MISSING:
                self._misses += 1
            else:
                self._hits += 1
        if value is MISSING:
            value = default
        elif read:
            value = _as_file(value)
        return _with_terms(value, row, expire_time, tag)

    def __getitem__(self, key: Any) -> Any:
        value = self.get(key, MISSING)
        if value is MISSING:
            raise KeyNotFoundError(f"{key!r:.200} is not in the cache {self._directory}")
        return value

    def read(self, key: Any, retry: bool = False) -> Any:
        """Return a value as a file, or KeyNotFoundError."""
        value = self.get(key, MISSING, read=True)
        if value is MISSING:
            raise KeyNotFoundError(f"{key!r:.200} is not in the cache {self._directory}")
        return value if hasattr(value, "read") else _as_file(value, least=0)

    def __contains__(self, key: Any) -> bool:
        return self._items.manager.exists(name_of(key)[0])

    def touch(self, key: Any, expire: float | None = None, retry: bool = False) -> bool:
        """Let a value expire in `expire` seconds, None for never; return whether it is there."""
        name, _ = name_of(key)
        with self._items.locked(retry):
            if not self._items.manager.exists(name):
                return False
            self._items.set_expiry(name, _end_of(expire))
        return True

    def incr(self, key: Any, delta: int = 1, default: int | None = 0, retry: bool = False) -> int:
        """Add `delta` to a number, or to `default` if it is absent, and return the sum.

        Raises:
            KeyNotFoundError: it is absent, and `default` is None.
        """
        name, kept = name_of(key)
        with self._items.locked(retry):
            value, row = self._items.read(name), self._items.row(name)
            if value is MISSING or row is None:
                if default is None:
                    raise KeyNotFoundError(f"{key!r:.200} is not in the cache {self._directory}")
                value, row = default, Row(self._items.next_number(), None, kept, None)
            changed: int = value + delta
            self._items.write(name, changed, row)
        return changed

    def decr(self, key: Any, delta: int = 1, default: int | None = 0, retry: bool = False) -> int:
        """Subtract `delta` from a number; see `incr`."""
        return self.incr(key, -delta, default, retry)

    def pop(
        self,
        key: Any,
        default: Any = None,
        expire_time: bool = False,
        tag: bool = False,
        retry: bool = False,
    ) -> Any:
        """Remove a value and return it, or `default`; with `expire_time` or `tag` a tuple."""
        name, _ = name_of(key)
        with self._items.locked(retry):
            value, row = self._items.read(name), self._items.row(name)
            if value is MISSING or row is None:
                return _with_terms(default, None, expire_time, tag)
            self._items.remove([name])
        return _with_terms(value, row, expire_time, tag)

    def delete(self, key: Any, retry: bool = False) -> bool:
        """Remove a key; return whether it was there."""
        with self._items.locked(retry):
            return bool(self._items.remove([name_of(key)[0]]))

    def __delitem__(self, key: Any, retry: bool = True) -> None:
        if not self.delete(key, retry):
            raise KeyNotFoundError(f"{key!r:.200} is not in the cache {self._directory}")

    # Many values

    def evict(self, tag: Any, retry: bool = False) -> int:
        """Remove all values with a tag, not None, and return how many there were."""
        with self._items.locked(retry):
            return self._items.remove(list(self._items.manager.find(tag=tag)))

    def clear(self, retry: bool = False) -> int:
        """Remove everything, and return how many values there were."""
        with self._items.locked(retry):
            removed = self._items.remove(self._items.names())
            self._items.set_own({})
        return removed

    def expire(self, now: float | None = None, retry: bool = False) -> int:
        """Return 0: what has expired is removed by the store itself, and is not counted."""
        return 0

    def cull(self, retry: bool = False) -> int:
        """Return 0: the store never exceeds `size_limit`, and makes room as it is needed."""
        return 0

    def __len__(self) -> int:
        return self._items.count()

    def __iter__(self) -> Iterator[Any]:
        for name, row in self._items.listed():
            yield key_of(name, row.kept)

    def __reversed__(self) -> Iterator[Any]:
        for name, row in reversed(self._items.listed()):
            yield key_of(name, row.kept)

    def iterkeys(self, reverse: bool = False) -> Iterator[Any]:
        """Yield the keys in order: numbers, text, bytes, and then the others."""
        kept = {name: row.kept for name, row in self._items.listed()}
        for name in sorted(kept, reverse=reverse):
            yield key_of(name, kept[name])

    def peekitem(
        self, last: bool = True, expire_time: bool = False, tag: bool = False, retry: bool = False
    ) -> Any:
        """Return the key and the value that were inserted last, or first.

        It looks at every key.

        Raises:
            KeyNotFoundError: the cache is empty.
        """
        listed = self._items.listed()
        for name, row in reversed(listed) if last else listed:
            value = self._items.read(name)
            if value is not MISSING:
                return _with_terms((key_of(name, row.kept), value), row, expire_time, tag)
        raise KeyNotFoundError(f"the cache {self._directory} is empty")

    # Queues

    def push(
        self,
        value: Any,
        prefix: str | None = None,
        side: str = "back",
        expire: float | None = None,
        read: bool = False,
        tag: Any = None,
        retry: bool = False,
    ) -> Any:
        """Store a value at an end of a queue, and return its key: a number, or text with a prefix.

        Args:
            value: The value.
            prefix: The name of the queue; None for the one without a name.
            side: `"back"` or `"front"`.
            expire: Seconds until it expires.
            read: Read the content of `value`, a file.
            tag: See `set`.
            retry: See `set`.
        """
        value = _content_of(value) if read else value
        with self._items.locked(retry):
            queue = Queue(self._items, prefix)
            number = queue.free(side)
            name, kept = name_of(queue.key(number))
            row = Row(self._items.next_number(), tag, kept, _end_of(expire))
            self._items.write(name, value, row)
            queue.include(number)
        return queue.key(number)

    def pull(
        self,
        prefix: str | None = None,
        default: Any = (None, None),
        side: str = "front",
        expire_time: bool = False,
        tag: bool = False,
        retry: bool = False,
    ) -> Any:
        """Remove the value at an end of a queue, and return its key and itself, or `default`."""
        return self._at_end(prefix, default, side, expire_time, tag, retry, removes=True)

    def peek(
        self,
        prefix: str | None = None,
        default: Any = (None, None),
        side: str = "front",
        expire_time: bool = False,
        tag: bool = False,
        retry: bool = False,
    ) -> Any:
        """Return the key and the value at an end of a queue, or `default`."""
        return self._at_end(prefix, default, side, expire_time, tag, retry, removes=False)

    def _at_end(
        self,
        prefix: str | None,
        default: Any,
        side: str,
        expire_time: bool,
        tag: bool,
        retry: bool,
        *,
        removes: bool,
    ) -> Any:
        with self._items.locked(retry):
            queue = Queue(self._items, prefix)
            while (number := queue.end(side)) is not None:
                name, _ = name_of(queue.key(number))
                value, row = self._items.read(name), self._items.row(name)
                if value is MISSING or row is None:
                    queue.leave_out(side)  # It has expired, or was removed by its key.
                    continue
                if removes:
                    self._items.remove([name])
                    queue.leave_out(side)
                queue.keep()
                return _with_terms((queue.key(number), value), row, expire_time, tag)
            queue.keep()
        return default

    # Functions

    def memoize(
        self,
        name: str | None = None,
        typed: bool = False,
        expire: float | None = None,
        tag: Any = None,
        ignore: Iterable[int | str] = (),
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Return a decorator that keeps the results of a function.

        The key of a call is `decorated.__cache_key__(...)`. Arguments are compared by their
        content. `@manager.cache` of a manager also notices that the function has changed.

        Args:
            name: What the keys begin with; None for the name of the function.
            typed: Tell arguments of different types apart.
            expire: Seconds until a result expires.
            tag: The tag of the results.
            ignore: Places and names of arguments that do not matter.
        """
        if callable(name):
            raise InvalidOptionError("memoize is called: @cache.memoize(), with the parentheses")
        left_out = frozenset(ignore)

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            base = name_of_function(function) if name is None else name

            def cache_key(*args: Any, **kwargs: Any) -> str:
                return arguments_key(base, args, kwargs, typed, left_out)

            @functools.wraps(function)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                key = cache_key(*args, **kwargs)
                found = self.get(key, MISSING)
                if found is MISSING:
                    found = function(*args, **kwargs)
                    if expire is None or expire > 0:
                        self.set(key, found, expire, tag=tag, retry=True)
                return found

            wrapper.__cache_key__ = cache_key  # type: ignore[attr-defined]
            return wrapper

        return decorate

    # The whole

    @contextmanager
    def transact(self, retry: bool = False) -> Iterator[None]:
        """Let no other thread or process change the cache meanwhile.

        An exception takes back what was changed. A kill does not: what had been changed stays.

        Raises:
            BusyError: another one takes too long.
        """
        with self._items.transaction(retry):
            yield

    def stats(self, enable: bool = True, reset: bool = False) -> tuple[int, int]:
        """Return the hits and misses of this object, counted while `enable` is on."""
        counted = self._hits, self._misses
        if reset:
            self._hits = self._misses = 0
        self._settings.change("statistics", int(enable), keep=False)
        return counted

    def volume(self) -> int:
        """Return the bytes that the cache takes on the disk."""
        return int(self._items.manager._call("volume"))

    def check(self, fix: bool = False, retry: bool = False) -> list[str]:
        """Verify all values, and return what is wrong; with `fix`, repair what can be repaired."""
        found: list[str] = self._items.manager._call("problems", fix)
        return found

    def create_tag_index(self) -> None:
        """Do nothing: tags are found without an index."""
        self._settings.change("tag_index", 1, keep=True)

    def drop_tag_index(self) -> None:
        """Do nothing: tags are found without an index."""
        self._settings.change("tag_index", 0, keep=True)

    def close(self) -> None:
        """Close the cache; the next call opens it again."""
        self._items.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __getstate__(self) -> tuple[Any, ...]:
        return self.directory, self._timeout, None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.directory!r})"


def _end_of(expire: float | None) -> float | None:
    try:
        return None if expire is None else CLOCK.wall() + expire
    except TypeError as error:
        raise InvalidOptionTypeError(
            f"expire={expire!r:.60} must be a number of seconds"
        ) from error


def _content_of(file: Any) -> Any:
    if not hasattr(file, "read"):
        raise InvalidOptionTypeError(f"with read=True the value must be a file, not {file!r:.60}")
    return file.read()


def _with_terms(value: Any, row: Row | None, expire_time: bool, tag: bool) -> Any:
    if not (expire_time or tag):
        return value
    parts = [value]
    if expire_time:
        parts.append(None if row is None else row.expires_at)
    if tag:
        parts.append(None if row is None else row.tag)
    return tuple(parts)


def _as_file(value: Any, least: int = _LARGE) -> Any:
    if isinstance(value, bytes) and len(value) >= least:
        return io.BytesIO(value)
    if isinstance(value, str) and len(value) >= least:
        return io.StringIO(value)
    return value
