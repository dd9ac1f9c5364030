"""The keys, values and items of a manager, to be walked along while keys come and go.

Not snapshots, and no lists: each key is looked up when it is its turn, and one that has gone since
it was listed is left out.
"""

from __future__ import annotations

import sys
from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import TYPE_CHECKING, Any

from memories.errors import KeyNotFoundError

if TYPE_CHECKING:
    from memories.core.values import Values


class KeyView(KeysView[str]):
    """The keys; `dict(manager)` begins with them."""

    _mapping: Values

    def __iter__(self) -> Iterator[str]:
        self._mapping._hierarchy.expiry.listed(sys._getframe(1))
        return self._mapping.scan()


class ItemView(ItemsView[str, Any]):
    """Keys and values, without those that are gone when it is their turn."""

    _mapping: Values

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        for key in self._mapping.scan():
            try:
                item = key, self._mapping.retrieve(key)
            except KeyNotFoundError:
                continue
            yield item


class ValueView(ValuesView[Any]):
    """Values, without those that are gone when it is their turn."""

    _mapping: Values

    def __iter__(self) -> Iterator[Any]:
        for _, value in ItemView(self._mapping):
            yield value

    def __contains__(self, wanted: object) -> bool:
        return any(value is wanted or value == wanted for value in self)
