"""Managers and parts of them as mappings, which can be iterated while other threads change them.

Each key is looked up when its turn comes; a key that was removed since it was listed is left out.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import (
    Callable,
    ItemsView,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
    ValuesView,
)
from types import FrameType
from typing import Any, Protocol

from memories.errors import KeyNotFoundError


class Scannable(Protocol):
    """What a view reads: a manager."""

    def scan(self) -> Iterator[str]:
        """Yield the keys, in order."""

    def retrieve(self, key: str) -> Any:
        """Return the value of `key`."""


class KeyView(KeysView[str]):
    """The keys; `dict(manager)` begins with them. `on_list` gets the frame that lists them."""

    _mapping: Scannable

    def __init__(self, mapping: Mapping[str, Any], on_list: Callable[[FrameType], None]) -> None:
        super().__init__(mapping)
        self._on_list = on_list

    def __iter__(self) -> Iterator[str]:
        self._on_list(sys._getframe(1))
        return self._mapping.scan()


class ItemView(ItemsView[str, Any]):
    """Keys and values, without the keys that are gone when their turn comes."""

    _mapping: Scannable

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        for key in self._mapping.scan():
            try:
                item = key, self._mapping.retrieve(key)
            except KeyNotFoundError:
                continue
            yield item


class ValueView(ValuesView[Any]):
    """Values, without those whose key is gone when its turn comes."""

    def __init__(self, mapping: Mapping[str, Any]) -> None:
        super().__init__(mapping)
        self._items = ItemView(mapping)

    def __iter__(self) -> Iterator[Any]:
        for _, value in self._items:
            yield value

    def __contains__(self, wanted: object) -> bool:
        return any(value is wanted or value == wanted for value in self)


class StoreMapping(MutableMapping[str, Any]):
    """What is a mapping by methods with names: the operators call these."""

    @abstractmethod
    def store(self, key: str, data: Any) -> None:
        """Store a value."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove a key; KeyNotFoundError if it is absent."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Return whether the key is present."""

    @abstractmethod
    def scan(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys that start with `prefix`, in order."""

    def items(self) -> ItemsView[str, Any]:
        """Return a view of keys and values; a key that is removed meanwhile is left out."""
        return ItemView(self)

    def values(self) -> ValuesView[Any]:
        """Return a view of the values; one whose key is removed meanwhile is left out."""
        return ValueView(self)

    def __setitem__(self, key: str, data: Any) -> None:
        self.store(key, data)

    def __delitem__(self, key: str) -> None:
        self.delete(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.exists(key)

    def __iter__(self) -> Iterator[str]:
        return self.scan()
