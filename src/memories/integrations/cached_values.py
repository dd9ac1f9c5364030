"""Values that a host caches below a prefix of a manager.

They may be dropped for room. A value that cannot be read is absent, and one that there is no room
for is not kept: the host makes it again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any

from memories.caching import default
from memories.errors import (
    ConflictError,
    CorruptDataError,
    InvalidKeyError,
    InvalidOptionTypeError,
    TierFullError,
    UnavailableError,
    UnsupportedTypeError,
    UntrustedDataError,
)
from memories.foundation.clock import SystemClock
from memories.foundation.keys import check_key, check_name
from memories.foundation.logging import logger
from memories.integrations.managers import check_manager, open_shared

_HASHED = "#"  # What the name of a hash begins with.
_UNREADABLE = (CorruptDataError, UnavailableError, UntrustedDataError, UnsupportedTypeError)


def manager_for(
    manager: Any, storage_path: str | os.PathLike[str] | None, options: Mapping[str, Any]
) -> Any:
    """Return the manager that a host uses: a given one, one of a directory, or the default one.

    Raises:
        InvalidOptionTypeError: it is not a manager, both are given, or one has a wrong type.
    """
    if not isinstance(options, Mapping):
        raise InvalidOptionTypeError(
            f"options={options!r:.60} must be a dict of options of SharedMemoryManager"
        )
    if manager is not None:
        if storage_path or options:
            raise InvalidOptionTypeError(
                "manager= is open already: give either it, or storage_path= and options"
            )
        return check_manager(manager, shared=True)
    if storage_path:
        return open_shared(storage_path, options)
    if options:
        raise InvalidOptionTypeError(
            f"{', '.join(options)}: give a storage_path, too; without one memories.toml configures "
            "the manager"
        )
    return default()


class CachedValues:
    """The values below one prefix.

    Args:
        manager: A manager, shared or not.
        prefix: What its keys begin with.
    """

    def __init__(self, manager: Any, prefix: str) -> None:
        self.manager = manager
        self._prefix = prefix

    def get(self, name: str, default_value: Any) -> Any:
        """Return a value, or `default_value` if it is absent or cannot be read."""
        key = self._key(name)
        try:
            return self.manager.retrieve(key, default_value)
        except _UNREADABLE as error:
            logger.warning("a cached value cannot be read and counts as absent: %s", error)
            return default_value

    def has(self, name: str) -> bool:
        """Return whether there is a value."""
        return bool(self.manager.exists(self._key(name)))

    def put(self, name: str, value: Any, ttl: float | None = None) -> None:
        """Keep a value for `ttl` seconds; a time that is over removes it.

        Raises:
            UnsupportedTypeError: it cannot be stored.
        """
        self._put(self._key(name), value, ttl)

    def add(self, name: str, value: Any, ttl: float | None = None) -> bool:
        """Keep a value if there is none, and return whether that was so."""
        if ttl is not None and ttl <= 0:
            return not self.has(name)
        try:
            self._put(self._key(name), value, ttl, if_version=0)
        except ConflictError:
            return False
        return True

    def change(self, name: str, change: Callable[[Any], Any]) -> Any:
        """Replace a value by `change(value)`, atomically, and return it; its time stays.

        Raises:
            KeyNotFoundError: it is absent.
        """
        key = self._key(name)
        while True:
            info = self.manager.info(key)
            changed = change(self.manager.retrieve(key))
            ttl = None if info.expires_at is None else info.expires_at - SystemClock.wall()
            try:
                self._put(key, changed, ttl, if_version=info.version)
            except ConflictError:
                continue  # Another thread or process was faster.
            return changed

    def set_ttl(self, name: str, ttl: float | None) -> bool:
        """Let a value live for `ttl` seconds from now on; return whether there is one."""
        key = self._key(name)
        if ttl is not None and ttl <= 0:
            return self.remove(name)
        try:
            self.manager.set_terms(key, ttl=ttl)
        except KeyError:
            return False
        return True

    def remove(self, name: str) -> bool:
        """Remove a value, and return whether there was one."""
        return bool(self.manager.delete_many([self._key(name)]))

    def clear(self) -> None:
        """Remove all values."""
        if self._prefix:
            self.manager.delete_prefix(self._prefix)
        else:
            self.manager.clear()

    def _put(self, key: str, value: Any, ttl: float | None, **condition: int) -> None:
        if ttl is not None and ttl <= 0:
            self.manager.delete_many([key])
            return
        try:
            self.manager.store(key, value, ttl=ttl, evictable=True, **condition)
        except TierFullError as error:
            logger.debug("a value is too large to be cached: %s", error)
            self.manager.delete_many([key])  # What was there is not the value any more.

    def _key(self, name: Any) -> str:
        """Return the key of a name; that of one that is no key is its hash.

        Raises:
            InvalidKeyTypeError: it is not a `str`.
        """
        check_name(name)
        if name and not name.startswith(_HASHED):
            try:
                return check_key(self._prefix + name)
            except InvalidKeyError:
                pass  # It is too long, or has characters that a key may not have.
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{self._prefix}{_HASHED}{digest}"
