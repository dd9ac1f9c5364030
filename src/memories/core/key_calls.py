"""The calls of a manager about single keys and about their names, apart from values.

They are a base class of the public one, which would be longer than 800 lines with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from types import EllipsisType
from typing import TYPE_CHECKING, Any, cast

from memories.core.prefix_view import PrefixView
from memories.errors import InvalidOptionError
from memories.foundation.keys import check_key, check_prefix
from memories.model.tiers import Cause, TierChoice, TierText
from memories.options.metadata import matcher
from memories.options.settings import check_several, check_tier

if TYPE_CHECKING:
    from memories.core.explain import Explanation
    from memories.core.key_info import KeyInfo
    from memories.core.services import Services
    from memories.core.value_reader import ValueReader
    from memories.core.value_writer import ValueWriter
    from memories.engine.hierarchy import Hierarchy


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
        from memories.core.key_info import key_info  # Imported at use, like all that few need.

        return key_info(self._services, check_key(key))

    def explain(self, key: str) -> Explanation:
        """Return where `key` is, why, and its latest moves."""
        from memories.core.explain import explain

        return explain(self._services, check_key(key))

    def get_tier(self, key: str) -> TierText:
        """Return the name of the tier that answers for `key`; KeyNotFoundError if none does."""
        return self._hierarchy.lookup(check_key(key)).tier.text

    def scan(self, prefix: str = "", delimiter: str | None = None) -> Iterator[str]:
        """Yield the keys that start with `prefix`, ordered by their UTF-8 bytes.

        With a `delimiter`, such as `"/"`, yield one level only, like the listing of a directory:
        the keys without a delimiter behind the prefix, and once each what the longer keys have up
        to and with the next delimiter. What lies further down is passed over unread.

        Keys that come or go meanwhile may or may not be seen.

        Raises:
            InvalidOptionError: the delimiter is empty, or not a text.
        """
        self._hierarchy.require_readable()
        prefix = check_prefix(prefix)
        if delimiter is not None and (not isinstance(delimiter, str) or not delimiter):
            raise InvalidOptionError(
                f"delimiter={delimiter!r:.60} must be a text like '/', or None for all keys"
            )
        self._hierarchy.settlement.settle()
        if delimiter is not None:
            yield from self._hierarchy.catalog.level(prefix, delimiter, self._exists)
            return
        for key in self._hierarchy.catalog.keys(prefix):
            if self._exists(key):
                yield key

    def _exists(self, key: str) -> bool:
        return self._hierarchy.residency.has(key) or self._reader.exists(key)

    def prefix(self, prefix: str) -> PrefixView:
        """Return the keys that start with `prefix` as a mapping, by their names without it.

        Raises:
            InvalidKeyError: no key can start with it.
        """
        return PrefixView(
            cast("MutableMapping[str, Any]", self), check_key(prefix) if prefix else ""
        )

    def find(self, **metadata: Any) -> Iterator[str]:
        """Yield the keys whose metadata has every one of these items, in key order.

        Raises:
            InvalidOptionError: an item is of a type that metadata cannot hold.
        """
        return self._reader.find(matcher(metadata)) if metadata else self.scan()

    def delete_prefix(self, prefix: str) -> int:
        """Remove every key that starts with `prefix`, and return how many there were.

        Their space on the disk is free then, except where it lies between other values.
        """
        return self._hierarchy.remove_prefix(check_prefix(prefix))

    def delete_many(self, keys: Iterable[str]) -> int:
        """Remove those of `keys` that are in any tier, together; return how many there were.

        Absent keys are passed over. Their space on the disk is free then, except where it lies
        between other values. Where it fails in the middle, the first keys are removed.
        """
        wanted = dict.fromkeys(check_key(key) for key in check_several("keys", keys))
        return self._hierarchy.remove_many(wanted)

    def copy(self, key: str, new: str) -> None:
        """Store the value of `key` under `new` as well: in the same tier, with the same terms.

        Nothing is decoded; a value at rest is copied as the bytes that it is, once they are
        verified. The copy is durable if `key` is. What lay under `new` is replaced.

        Raises:
            KeyNotFoundError: `key` is in no tier.
            TierFullError: there is no room for another one; nothing has changed.
            CorruptDataError: the bytes of the value are damaged.
            UntrustedDataError: it would run code, and no trusted key has signed it: a copy is
                signed with the key of this user.
        """
        self._writer.copy(check_key(key), check_key(new))

    def rename(self, key: str, new: str) -> None:
        """Give the value of `key` the key `new`, in the place of what lay there.

        Tier, terms and time of the value stay. In RAM nothing is copied; a value at rest is
        written again, like by `copy`. After a kill or an interrupt at any moment one of the two
        keys has the value; for a moment other threads and processes may see both, but never none.

        Raises:
            KeyNotFoundError: `key` is in no tier.
            TierFullError: its durable tier has no room for a second one, which it needs until the
                first one is removed; nothing has changed.
            CorruptDataError: the bytes of the value are damaged.
            UntrustedDataError: it would run code, and no trusted key has signed it.
        """
        self._writer.rename(check_key(key), check_key(new))

    def touch(self, key: str, ttl: float | None = None) -> None:
        """Take note that `key` is used now, as if it was read; with a `ttl` let it live on.

        Args:
            key: The key.
            ttl: Seconds to live from now on. None leaves the time as it is.

        Raises:
            KeyNotFoundError: `key` is in no tier.
            InvalidOptionError: `ttl` is not a number of seconds above 0.
        """
        self._writer.touch(check_key(key), ttl)

    def set_terms(
        self,
        key: str,
        *,
        ttl: float | EllipsisType | None = ...,
        metadata: Mapping[str, Any] | EllipsisType | None = ...,
        pin: bool | EllipsisType = ...,
        min_tier: TierChoice | EllipsisType | None = ...,
        max_tier: TierChoice | EllipsisType | None = ...,
        evictable: bool | EllipsisType = ...,
    ) -> None:
        """Change the terms of `key` without its value, durably where it is durable.

        What is left out stays as it is; None is as if `store` had not been given it. The version
        stays, too, and the value where it is.

        Args:
            key: The key.
            ttl: Seconds to live from now on; None for ever.
            metadata: All metadata, in the place of what is there.
            pin: Whether it may neither be moved nor evicted.
            min_tier: The fastest tier that may hold it.
            max_tier: The slowest tier that may hold it.
            evictable: Whether it may be dropped for room; see `store`.

        Raises:
            KeyNotFoundError: `key` is in no tier.
            InvalidOptionError: an option is invalid, or the tier of the key is not between
                `min_tier` and `max_tier`: migrate it first.
        """
        self._writer.set_terms(
            check_key(key),
            {
                "ttl": ttl, "metadata": metadata, "pin": pin, "min_tier": min_tier,
                "max_tier": max_tier, "evictable": evictable,
            },
        )  # fmt: skip

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
