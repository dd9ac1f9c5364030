"""The values on the nodes as a mapping, whose methods have the names of those of a manager."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from memories.core.value_reader import MISSING
from memories.core.views import StoreMapping
from memories.errors import KeyNotFoundError


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributedInfo:
    """What is known of a key on the nodes without reading its value.

    Attributes:
        key: The key.
        version: Its version, for `if_version=`.
        size: Bytes of each of its copies.
        stored_at: About when it was stored, in seconds since the epoch, by the writer's clock.
        expires_at: When it expires, by the writer's clock; None for never.
        metadata: The metadata it was stored with.
    """

    key: str
    version: int
    size: int
    stored_at: float
    expires_at: float | None
    metadata: dict[str, Any]


class DistributedView(StoreMapping):
    """The key space of a `DistributedMemoryManager` on its nodes.

    It holds nothing itself: `manager.distributed.store(...)` is `manager.store_distributed(...)`,
    and so on. `len` and iteration list the keys of the namespace, which takes a while on many.
    """

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    def store(self, key: str, data: Any, **options: Any) -> None:
        """Store a value; see `DistributedMemoryManager.store_distributed`."""
        self._manager.store_distributed(key, data, **options)

    def retrieve(self, key: str, default: Any = MISSING, **options: Any) -> Any:
        """Return a value; see `DistributedMemoryManager.retrieve_distributed`."""
        return self._manager.retrieve_distributed(key, default, **options)

    def delete(self, key: str) -> None:
        """Remove a key; KeyNotFoundError if it is absent."""
        self._manager.delete_distributed(key)

    def exists(self, key: str) -> bool:
        """Return whether a key has a value on the nodes."""
        return bool(self._manager.exists_distributed(key))

    def info(self, key: str) -> DistributedInfo:
        """Return what is known of a key without reading its value."""
        found: DistributedInfo = self._manager.info_distributed(key)
        return found

    def version(self, key: str) -> int:
        """Return the version of a key, for `if_version=`; 0 if it is absent."""
        return int(self._manager.version_distributed(key))

    def store_many(self, mapping: Mapping[str, Any], **options: Any) -> None:
        """Store many values; see `DistributedMemoryManager.store_many_distributed`."""
        self._manager.store_many_distributed(mapping, **options)

    def retrieve_many(self, keys: Iterable[str], default: Any = MISSING) -> dict[str, Any]:
        """Return many values; see `DistributedMemoryManager.retrieve_many_distributed`."""
        found: dict[str, Any] = self._manager.retrieve_many_distributed(keys, default)
        return found

    def delete_many(self, keys: Iterable[str]) -> int:
        """Remove many keys, and return how many there were."""
        return int(self._manager.delete_many_distributed(keys))

    def scan(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys that start with `prefix`, ordered by their UTF-8 bytes."""
        keys: Iterator[str] = self._manager.scan_distributed(prefix)
        return keys

    def clear(self) -> None:
        """Remove every key of the namespace."""
        self._manager.clear_distributed()

    def update(self, other: Any = (), /, **kwds: Any) -> None:
        """Store every item, with a few requests to each node."""
        self.store_many(dict(other, **kwds))

    def __getitem__(self, key: str) -> Any:
        return self._manager.retrieve_distributed(key)

    def __len__(self) -> int:
        return sum(1 for _ in self.scan())

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = None  # type: ignore[assignment]

    def popitem(self) -> tuple[str, Any]:
        """Remove and return the value of some key.

        Raises:
            KeyNotFoundError: there is none.
        """
        for key, value in self.items():
            del self[key]
            return key, value
        raise KeyNotFoundError("the namespace on the nodes is empty")

    def __repr__(self) -> str:
        return f"<DistributedView of {self._manager!r}>"
