"""A cache backend of Django: `"BACKEND": "memories.django.DjangoCache"`."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache

from memories.errors import KeyNotFoundError, UnsupportedTypeError
from memories.foundation.clock import SystemClock
from memories.integrations.cached_values import CachedValues, manager_for

_OF_DJANGO = ("MAX_ENTRIES", "CULL_FREQUENCY")


class DjangoCache(BaseCache):
    """Keeps cached values in the tiers; all processes of a location share them.

    `LOCATION` is a directory, and `OPTIONS` are those of `SharedMemoryManager`, such as
    `"warm_memory_size": "1 GB"`; without a location it is `memories.default()`. The sizes are in
    bytes, and always held: `MAX_ENTRIES` and `CULL_FREQUENCY` have no effect.

    Args:
        location: A directory, or an empty text.
        params: The settings of the cache.

    Raises:
        InvalidOptionError: an option is invalid.
    """

    def __init__(self, location: str, params: Mapping[str, Any]) -> None:
        super().__init__(params)
        options = dict(params.get("OPTIONS", {}))
        for name in _OF_DJANGO:
            options.pop(name, None)
        manager = manager_for(options.pop("manager", None), location, options)
        self.values = CachedValues(manager, "" if location else "django/")

    def add(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        """Keep a value if there is none, and return whether that was so."""
        name = self.make_and_validate_key(key, version=version)
        return bool(_kept(self.values.add, name, value, self._ttl(timeout)))

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """Return a value, or `default`."""
        return self.values.get(self.make_and_validate_key(key, version=version), default)

    def set(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        """Keep a value."""
        name = self.make_and_validate_key(key, version=version)
        _kept(self.values.put, name, value, self._ttl(timeout))

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Let a value live longer, or shorter; return whether there is one."""
        name = self.make_and_validate_key(key, version=version)
        return self.values.set_ttl(name, self._ttl(timeout))

    def delete(self, key: Any, version: int | None = None) -> bool:
        """Remove a value, and return whether there was one."""
        return self.values.remove(self.make_and_validate_key(key, version=version))

    def has_key(self, key: Any, version: int | None = None) -> bool:
        """Return whether there is a value."""
        return self.values.has(self.make_and_validate_key(key, version=version))

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> Any:
        """Add to a value, atomically for all processes; ValueError if it is absent."""
        name = self.make_and_validate_key(key, version=version)
        try:
            return self.values.change(name, lambda value: value + delta)
        except KeyNotFoundError:
            raise ValueError(f"{key!r:.200} is not in the cache") from None

    def clear(self) -> None:
        """Remove all values of the location."""
        self.values.clear()

    def _ttl(self, timeout: Any) -> float | None:
        """Return the seconds that Django means by a timeout."""
        end = self.get_backend_timeout(timeout)
        return None if end is None else float(end) - SystemClock.wall()


def _kept(keep: Any, *args: Any) -> Any:
    """Raise what pickle has raised: code of Django catches that."""
    try:
        return keep(*args)
    except UnsupportedTypeError as error:
        if isinstance(error.__cause__, pickle.PickleError):
            raise error.__cause__ from None
        raise
