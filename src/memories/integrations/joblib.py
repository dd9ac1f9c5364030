"""A store backend of joblib: results of `Memory(backend="memories")` are values in the tiers.

A result is stored as what it is, and not as a pickle in a file. Any number of processes share the
store, as workers of `Parallel` do.
"""

from __future__ import annotations

import datetime
import io
import json
import pickle
import sys
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from joblib import register_store_backend
from joblib._store_backends import (
    CacheItemInfo,
    CacheWarning,
    StoreBackendBase,
    StoreBackendMixin,
)
from joblib.logger import format_time

from memories.core.manager import MemoryManager
from memories.core.manager_handle import ManagerHandle, handle_of, open_handle
from memories.errors import InvalidOptionError, KeyNotFoundError, MemoriesError
from memories.foundation.clock import SystemClock
from memories.foundation.fork_lock import new_lock
from memories.integrations.byte_values import as_bytes, folder
from memories.integrations.managers import check_manager
from memories.options.settings import check_mapping
from memories.sharing import SharedMemoryManager

NAME = "memories"
RESULT, METADATA = "output.pkl", "metadata.json"  # The names that joblib gives to its files.
_NAMES_FROM = 10  # From this verbosity on, joblib prints where a result lies.
_COMPRESSORS = ("zlib", "lz4", "zstd")
_MMAP_MODES = (None, "r", "c")
_lock = new_lock()
_opened: weakref.WeakValueDictionary[str, SharedMemoryManager] = weakref.WeakValueDictionary()


class MemoriesStoreBackend(StoreBackendBase, StoreBackendMixin):
    """Keeps the results of joblib in a manager.

    `Memory(location, backend="memories")` opens a `SharedMemoryManager` in the location, with
    `backend_options` as its options. `Memory(MemoriesStoreBackend(manager))` uses one that is open.

    Results may be dropped for room, so that the sizes of the tiers hold; they are computed again
    then. With `mmap_mode="r"` arrays are read-only views of what is stored, without it copies.

    Args:
        manager: A manager, shared or not; None for one that `configure` opens.
        prefix: What its keys begin with.

    Raises:
        InvalidOptionError: an option is invalid.
    """

    def __init__(self, manager: Any = None, prefix: str = "joblib") -> None:
        self.manager = manager
        self.compress = False
        self.mmap_mode: str | None = None
        self.verbose = 0
        self._prefix = "" if manager is None else folder(prefix)
        self._options: dict[str, Any] | None = None
        if manager is not None:
            check_manager(manager, shared=True)
            self.location = f"{manager.path or 'memories'}/{self._prefix}".rstrip("/")

    def configure(
        self,
        location: str,
        verbose: int = 1,
        backend_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Open the store in `location`."""
        options = dict(check_mapping("backend_options", backend_options))
        compress = options.pop("compress", False)
        mmap_mode = options.pop("mmap_mode", None)
        if mmap_mode not in _MMAP_MODES:
            raise InvalidOptionError(
                f"mmap_mode={mmap_mode!r}: what is stored cannot be written to; use 'r' or 'c'"
            )
        if compress:
            options.setdefault("compression", {"cold": _compression(compress)})
        self.location, self.verbose = str(location), verbose
        self.compress, self.mmap_mode = compress, mmap_mode
        self._options = options
        self.manager = _shared(self.location, options)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a worker needs to use the same store."""
        state = self.__dict__.copy()
        if self._options is not None:
            state["manager"] = None
        elif isinstance(self.manager, MemoryManager):
            state["manager"] = handle_of(self.manager, flush=False)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._options is not None:
            self.manager = _shared(self.location, self._options)
        elif isinstance(self.manager, ManagerHandle):
            self.manager = open_handle(self.manager)

    def load_item(
        self,
        call_id: Sequence[str],
        verbose: int = 1,
        timestamp: float | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return a result; KeyError if it is absent."""
        if verbose > 1:
            self._print_loading(call_id, verbose, timestamp, metadata)
        key = self._key(*call_id, RESULT)
        try:
            return self.manager.retrieve(key, copy=None if self.mmap_mode == "r" else True)
        except KeyNotFoundError:
            raise KeyError(
                f"the result {key[:200]!r} is absent: it may have been cleared, or dropped for room"
            ) from None

    def dump_item(self, call_id: Sequence[str], item: Any, verbose: int = 1) -> None:
        """Store a result; a failure is a warning, and the program goes on with the result."""
        if verbose > _NAMES_FROM:
            _say(f"Persisting in {self._path(self._key(*call_id))}")
        try:
            self._store(self._key(*call_id, RESULT), item)
        except MemoriesError as error:
            cause = error.__cause__
            if isinstance(cause, pickle.PicklingError):
                warnings.warn(
                    "Unable to cache to disk: failed to pickle output. In version 1.5 this will "
                    f"raise an exception. Exception: {cause}.",
                    FutureWarning,
                    stacklevel=2,
                )
            else:
                warnings.warn(
                    f"Unable to cache to disk. Exception: {cause or error}.",
                    CacheWarning,
                    stacklevel=2,
                )

    def contains_item(self, call_id: Sequence[str]) -> bool:
        """Return whether there is a result."""
        return bool(self.manager.exists(self._key(*call_id, RESULT)))

    def get_metadata(self, call_id: Sequence[str]) -> dict[str, Any]:
        """Return what joblib has noted with a result; nothing if that was dropped."""
        kept = self.manager.retrieve(self._key(*call_id, METADATA), b"{}")
        found: dict[str, Any] = json.loads(kept)
        return found

    def store_metadata(self, call_id: Sequence[str], metadata: Mapping[str, Any]) -> None:
        """Note something with a result."""
        self._store(self._key(*call_id, METADATA), json.dumps(metadata).encode())

    def get_items(self) -> list[CacheItemInfo]:
        """Return the results, with their sizes and the times of their latest uses."""
        items = []
        for key in self.manager.scan(self._prefix):
            path, _, name = key.rpartition("/")
            if name != RESULT:
                continue
            try:
                result = self.manager.info(key)
                sizes = [result, self.manager.info(f"{path}/{METADATA}")]
            except KeyNotFoundError:
                continue  # It was dropped, or cleared by another process.
            size = sum(one.size if one.stored is None else one.stored for one in sizes)
            used = datetime.datetime.fromtimestamp(result.read_at or result.stored_at)
            items.append(CacheItemInfo(self._path(path), size, used))
        return items

    def create_location(self, location: str) -> None:
        """Do nothing: keys need no directories."""

    def clear_location(self, location: str) -> None:
        """Remove everything in a location."""
        key = self._key_of(location)
        if key and key != self._prefix.rstrip("/"):
            self.manager.delete_prefix(f"{key}/")
            self.manager.delete_many([key])
        elif self._prefix:
            self.manager.delete_prefix(self._prefix)
        else:
            self.manager.clear()

    def _item_exists(self, location: str) -> bool:
        key = self._key_of(location)
        return bool(self.manager.exists(key)) or any(True for _ in self.manager.scan(f"{key}/"))

    def _open_item(self, location: str, mode: str) -> Any:
        """Return a file; what is written to it is stored when it is closed."""
        key = self._key_of(location)
        if "w" in mode:
            return _NewItem(lambda content: self._store(key, content, evictable=False))
        try:
            return io.BytesIO(as_bytes(key, self.manager.retrieve(key)))
        except KeyNotFoundError as error:
            raise FileNotFoundError(str(error)) from None

    def _move_item(self, source: str, target: str) -> None:
        """Give an item another location."""
        kept = self.manager.retrieve(self._key_of(source))
        self._store(self._key_of(target), kept, evictable=False)
        self.manager.delete_many([self._key_of(source)])

    def _concurrency_safe_write(
        self, content: Any, filename: str, write: Callable[[Any, str], None]
    ) -> None:
        """Write under the name itself: an item is stored at once, or not at all."""
        write(content, filename)

    def _store(self, key: str, content: Any, *, evictable: bool = True) -> None:
        if not getattr(self.manager, "read_only", False):  # A plain manager, in a worker.
            self.manager.store(key, content, evictable=evictable)

    def _key(self, *names: str) -> str:
        return self._prefix + "/".join(name.strip("/") for name in names)

    def _key_of(self, location: str) -> str:
        """Return the key of a path that joblib has made from the location of the store."""
        inside = str(location).removeprefix(str(self.location)).strip("/")
        return self._key(inside) if inside else self._prefix.rstrip("/")

    def _path(self, key: str) -> str:
        return f"{self.location}/{key.removeprefix(self._prefix)}"

    def _print_loading(
        self,
        call_id: Sequence[str],
        verbose: int,
        timestamp: float | None,
        metadata: Mapping[str, Any] | None,
    ) -> None:
        """Print what joblib prints before it reads a result."""
        since = "" if timestamp is None else f"{format_time(SystemClock.wall() - timestamp): <16}"
        signature = call_id[0].rsplit("/", 1)[-1]
        arguments = (metadata or {}).get("input_args")
        if arguments is not None:
            signature += f"({', '.join(f'{name}={value}' for name, value in arguments.items())})"
        place = "..." if verbose < _NAMES_FROM else f" from {self._path(self._key(*call_id))}"
        _say(f"[Memory]{since}: Loading {signature}{place}")


def _shared(location: str, options: dict[str, Any]) -> SharedMemoryManager:
    """Return the manager that all backends of this process have of a location.

    A program makes many `Memory` objects of one location, some with options of their own; those of
    the first one are in force.
    """
    with _lock:
        manager = _opened.get(location)
        if manager is None or manager._closed:
            manager = _opened[location] = SharedMemoryManager(location, **options)
        return manager


def _say(line: str) -> None:
    """Write where joblib prints: a user has asked it to be verbose."""
    sys.stdout.write(f"{line}\n")


class _NewItem(io.BytesIO):
    """A file in memory whose content is stored when it is closed, unless writing it failed."""

    def __init__(self, store: Callable[[bytes], None]) -> None:
        super().__init__()
        self._store = store

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            self._store(self.getvalue())
        super().__exit__(*error)


def _compression(compress: Any) -> str:
    """Return the compression of the tiers that an option of joblib names.

    Raises:
        InvalidOptionError: the tiers do not have it.
    """
    name, level = compress if isinstance(compress, tuple) else ("zlib", compress)
    if isinstance(compress, str):
        name, level = compress, True
    if name not in _COMPRESSORS:
        raise InvalidOptionError(
            f"compress={compress!r}: the tiers have {', '.join(_COMPRESSORS)}, or compress=False "
            "for what pays"
        )
    return name if level is True and name != "zlib" else f"{name}:{3 if level is True else level}"


register_store_backend(NAME, MemoriesStoreBackend)
