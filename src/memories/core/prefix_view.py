"""The keys of a manager that start with a prefix, as a mapping of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from memories.core.value_reader import MISSING
from memories.core.views import StoreMapping
from memories.errors import KeyNotFoundError
from memories.foundation.keys import check_key
from memories.model.tiers import StoreTier

if TYPE_CHECKING:
    from memories.core.key_info import KeyInfo


class PrefixView(StoreMapping):
    """The keys of a manager that start with a prefix, by their names without it.

    It holds nothing itself: every call is one of the manager with longer keys, and any number of
    views may be used beside each other and beside the manager. Errors name the whole key.
    """

    def __init__(self, manager: MutableMapping[str, Any], prefix: str) -> None:
        self._manager: Any = manager  # Its class makes views.
        self._prefix = prefix

    @property
    def manager(self) -> MutableMapping[str, Any]:
        """The manager that holds the values."""
        whole: MutableMapping[str, Any] = self._manager
        return whole

    @property
    def name(self) -> str:
        """The prefix."""
        return self._prefix

    def prefix(self, prefix: str) -> PrefixView:
        """Return a view of the keys below a further prefix."""
        return PrefixView(self._manager, check_key(self._key(prefix)))

    def store(self, key: str, data: Any, tier: StoreTier = "auto", **options: Any) -> None:
        """Store a value; see `MemoryManager.store`."""
        self._manager.store(self._key(key), data, tier, **options)

    def retrieve(self, key: str, default: Any = MISSING, **options: Any) -> Any:
        """Return a value; see `MemoryManager.retrieve`."""
        return self._manager.retrieve(self._key(key), default, **options)

    def delete(self, key: str) -> None:
        """Remove a key; KeyNotFoundError if it is in no tier."""
        self._manager.delete(self._key(key))

    def exists(self, key: str) -> bool:
        """Return whether a key is in any tier; does not count as a read."""
        return bool(self._manager.exists(self._key(key)))

    def info(self, key: str) -> KeyInfo:
        """Return what is known of a key; see `MemoryManager.info`."""
        found: KeyInfo = self._manager.info(self._key(key))
        return found

    def store_many(self, mapping: Mapping[str, Any], tier: StoreTier = "auto") -> None:
        """Store all of `mapping`; see `MemoryManager.store_many`."""
        values = {self._key(key): value for key, value in mapping.items()}
        self._manager.store_many(values, tier)

    def retrieve_many(self, keys: Iterable[str], *, timeout: float | None = None) -> dict[str, Any]:
        """Return the values of `keys`; see `MemoryManager.retrieve_many`."""
        whole = [self._key(key) for key in keys]
        found = self._manager.retrieve_many(whole, timeout=timeout)
        return {key[len(self._prefix) :]: value for key, value in found.items()}

    def copy(self, key: str, new: str) -> None:
        """Store a value under another key as well; see `MemoryManager.copy`."""
        self._manager.copy(self._key(key), self._key(new))

    def rename(self, key: str, new: str) -> None:
        """Give a value another key; see `MemoryManager.rename`."""
        self._manager.rename(self._key(key), self._key(new))

    def delete_many(self, keys: Iterable[str]) -> int:
        """Remove those of `keys` that are in any tier; see `MemoryManager.delete_many`."""
        return int(self._manager.delete_many([self._key(key) for key in keys]))

    def scan(self, prefix: str = "", delimiter: str | None = None) -> Iterator[str]:
        """Yield names in order; see `MemoryManager.scan`."""
        for key in self._manager.scan(self._key(prefix), delimiter):
            yield key[len(self._prefix) :]

    def clear(self) -> None:
        """Remove every key below the prefix."""
        self._manager.delete_prefix(self._prefix)

    def pop(self, key: str, default: Any = MISSING) -> Any:
        """Remove a key and return its value, atomically for this key."""
        return self._manager.pop(self._key(key), default)

    def popitem(self) -> tuple[str, Any]:
        """Remove the first key and return it with its value; KeyNotFoundError if there is none."""
        for key in self.scan():
            try:
                return key, self.pop(key)
            except KeyNotFoundError:
                continue  # Removed since it was listed.
        raise KeyNotFoundError(f"nothing is stored below {self._prefix[:200]!r}")

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, storing `default` first if it is absent, atomically."""
        return self._manager.setdefault(self._key(key), default)

    def __getitem__(self, key: str) -> Any:
        return self._manager[self._key(key)]

    def __len__(self) -> int:
        return sum(1 for _ in self.scan())

    def __bool__(self) -> bool:
        return next(self.scan(), None) is not None

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, PrefixView)
            and self._manager is other._manager
            and self._prefix == other._prefix
        )

    def __hash__(self) -> int:
        return hash((id(self._manager), self._prefix))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._prefix[:200]!r} of {self._manager!r}>"

    def _key(self, name: str) -> str:
        return self._prefix + (name if isinstance(name, str) else check_key(name))
