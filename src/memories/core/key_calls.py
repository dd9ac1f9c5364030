"""The calls of a manager about single keys and about their names, apart from values.

They are a base class of the public one, which would be longer than 800 lines with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from memories.core.explain import Explanation, explain
from memories.core.key_info import KeyInfo, key_info
from memories.core.services import Services
from memories.core.value_reader import ValueReader
from memories.core.value_writer import ValueWriter
from memories.engine.hierarchy import Hierarchy
from memories.foundation.keys import check_key
from memories.model.tiers import Cause, TierChoice, TierText
from memories.options.metadata import matcher
from memories.options.settings import check_tier


class KeyCalls:
    """Looks up, lists, moves and removes keys; a base class of the managers."""

    _services: Services
    _hierarchy: Hierarchy
    _reader: ValueReader
    _writer: ValueWriter

    def info(self, key: str) -> KeyInfo:
        """Return what is known of `key` without reading its value: sizes, codec, terms, times.

        It does not count as a read, and costs the same in every tier; archived values too.

        Raises:
            KeyNotFoundError: `key` is in no tier.
        """
        return key_info(self._services, check_key(key))

    def explain(self, key: str) -> Explanation:
        """Return where `key` is, why, and its latest moves."""
        return explain(self._services, check_key(key))

    def get_tier(self, key: str) -> TierText:
        """Return the name of the tier that answers for `key`; KeyNotFoundError if none does."""
        return self._hierarchy.lookup(check_key(key)).tier.text

    def scan(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys that start with `prefix`, ordered by their UTF-8 bytes."""
        self._hierarchy.require_readable()
        for key in self._hierarchy.catalog.keys(prefix):
            if self._hierarchy.residency.has(key) or self._reader.exists(key):
                yield key

    def find(self, **metadata: Any) -> Iterator[str]:
        """Yield the keys whose metadata has every one of these items, in key order.

        Raises:
            InvalidOptionError: an item is of a type that metadata cannot hold.
        """
        return self._reader.find(self.scan(), matcher(metadata))

    def delete_prefix(self, prefix: str) -> int:
        """Remove every key that starts with `prefix`, and return how many there were.

        Their space on the disk is free then, except where it lies between other values.
        """
        return self._hierarchy.remove_prefix(prefix)

    def migrate(self, key: str, tier: TierChoice) -> None:
        """Move `key` to `tier`.

        Raises:
            KeyNotFoundError: it is in no tier.
            InvalidOptionError: the tier is unknown or disabled, or the key's options forbid it.
            TierFullError: the tier cannot make room; the value stays where it was.
        """
        self._hierarchy.move(check_key(key), check_tier(tier), Cause.EXPLICIT)

    def promote(self, key: str) -> TierText:
        """Move `key` one tier up, if there is one, and return its tier."""
        return self._writer.move_by(check_key(key), -1).text

    def demote(self, key: str) -> TierText:
        """Move `key` one tier down, if there is one, and return its tier."""
        return self._writer.move_by(check_key(key), 1).text

    def pin(self, key: str) -> None:
        """Forbid moving and evicting `key`."""
        self._writer.set_pinned(check_key(key), True)

    def unpin(self, key: str) -> None:
        """Allow moving and evicting `key` again."""
        self._writer.set_pinned(check_key(key), False)
