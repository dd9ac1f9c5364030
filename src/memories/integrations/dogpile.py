"""A backend of dogpile.cache: the values of a region are in the tiers, and may be dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dogpile.cache.api import NO_VALUE, CacheBackend

from memories.integrations.byte_values import folder
from memories.integrations.cached_values import CachedValues, manager_for
from memories.options.settings import check_mapping, check_seconds


class DogpileBackend(CacheBackend):
    """Keeps the values of a region: `make_region().configure("memories", arguments={...})`.

    Values are stored as what they are, arrays as arrays. The threads of a process that need the
    same value wait for one of them, as dogpile arranges it.

    Args:
        arguments: `manager`, a manager that is open, or `storage_path`, a directory that all
            processes with such a region share, with `options` of `SharedMemoryManager`. Without
            either it is `memories.default()`. `prefix`: what the keys begin with.
            `expiration_time`: seconds after which a value is removed; larger than that of the
            region. Others are ignored, as by all backends.

    Raises:
        InvalidOptionError: an option is invalid.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        arguments = check_mapping("arguments", arguments)
        self._ttl = check_seconds("expiration_time", arguments.get("expiration_time"))
        manager = manager_for(
            arguments.get("manager"), arguments.get("storage_path"), arguments.get("options", {})
        )
        self.values = CachedValues(manager, folder(arguments.get("prefix", "dogpile")))

    def get(self, key: str) -> Any:
        """Return a value, or `NO_VALUE`."""
        return self.values.get(key, NO_VALUE)

    def get_multi(self, keys: Sequence[str]) -> list[Any]:
        """Return the values of several keys."""
        return [self.get(key) for key in keys]

    def set(self, key: str, value: Any) -> None:
        """Keep a value."""
        self.values.put(key, value, self._ttl)

    def set_multi(self, mapping: Mapping[str, Any]) -> None:
        """Keep several values."""
        for key, value in mapping.items():
            self.set(key, value)

    def delete(self, key: str) -> None:
        """Remove a value, if there is one."""
        self.values.remove(key)

    def delete_multi(self, keys: Sequence[str]) -> None:
        """Remove several values."""
        for key in keys:
            self.delete(key)
