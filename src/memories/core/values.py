"""Values by key: what a mapping does, and what goes with it.

The half of the manager that a caller uses all day. A hit is one look into the front, or into the
catalog's dict and the entry's own `read`; everything else takes the slow road.
"""

from __future__ import annotations

import sys
from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
    ValuesView,
)
from typing import Any, Final

import msgspec
from numpy import ndarray

from memories.codecs import main_classes
from memories.core.lifecycle import Engine
from memories.core.memoize import memoize
from memories.core.read_options import ReadOptions
from memories.core.views import ItemView, KeyView, ValueView
from memories.engine.batch_read import read_together
from memories.engine.front_cache import EXACT_HITS, FrontCache
from memories.engine.hierarchy import Hierarchy
from memories.engine.payload import Payload
from memories.engine.quick import UNKNOWN
from memories.errors import UNREADABLE, InvalidOptionError, KeyNotFoundError, about_key
from memories.foundation.keys import check_key
from memories.model.entry import Entry
from memories.model.record import Terms
from memories.model.tiers import TierName
from memories.options.metadata import question
from memories.options.settings import check_seconds, check_tier
from memories.options.store_terms import make_terms


class _Missing:
    def __repr__(self) -> str:
        return "<raise KeyError>"


MISSING: Final = _Missing()
_GONE: Final = object()


class Values(MutableMapping[str, Any]):
    """Stores, retrieves and finds values by key, over an engine that a subclass provides."""

    _engine: Engine
    _hierarchy: Hierarchy
    _entries: dict[str, Entry]
    _front: FrontCache
    _at_front: dict[str, Any]

    def store(
        self,
        key: str,
        data: Any,
        tier: str = "auto",
        *,
        ttl: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        pin: bool = False,
        min_tier: str | None = None,
        max_tier: str | None = None,
        volatile: bool = False,
        copy: bool = True,
        if_version: int | None = None,
    ) -> None:
        """Store `data` under `key`, replacing what was there.

        Args:
            key: A `str` of 1 to 4,096 bytes in UTF-8, without NUL.
            data: Any value that has a codec or can be pickled. No other thread may change it before
                this returns.
            tier: Where it is when this returns: `"hot"`, `"warm"`, `"cold"`, `"glacier"`, or
                `"auto"` for the fastest with room. A value larger than the tier goes to the
                first below that holds it.
            ttl: Seconds to live.
            metadata: The caller's own words about it: names with numbers, texts, dates, UUIDs,
                enums and such, and lists, tuples, sets and dicts of them; `find` searches them.
            pin: Forbid moving and evicting it.
            min_tier: The fastest tier it may lie in.
            max_tier: The slowest tier it may lie in.
            volatile: Let an overwrite of a durable key be lost in a crash: the key is then absent,
                never old.
            copy: With False, hand over `data`'s own memory; do not write to it afterwards.
            if_version: Store only if the key is at this version (0: absent).

        Raises:
            InvalidKeyError: `key` cannot be a key.
            InvalidOptionError: an option means nothing, or contradicts another.
            UnsupportedTypeError: `data` cannot be serialised.
            TierFullError: there is no room for it; nothing has changed.
            ConflictError: the key is at another version than `if_version`.
        """
        key = check_key(key)
        rule = self._hierarchy.catalog.rules.find(key)
        if rule is not None and tier == "auto":
            tier = rule.tier or tier
        wanted = None if tier == "auto" else self._hierarchy.tier(check_tier(tier)).name
        terms = make_terms(
            ttl=ttl, metadata=metadata, pin=pin, min_tier=min_tier, max_tier=max_tier,
            now=self._engine.clock.wall, rule=rule,
        )  # fmt: skip
        if if_version is not None and (type(if_version) is not int or if_version < 0):
            raise InvalidOptionError(
                f"if_version={if_version!r} must be a version, or 0 for absent"
            )
        self._hierarchy.require_writable()
        # A durable tier has written the value when this returns, so it needs no copy of its own.
        written = copy and wanted is not None and wanted.durable
        self._hierarchy.put(
            key,
            self._taken_in(key, data, copy=copy, written=written),
            tier=wanted,
            terms=terms,
            volatile=volatile,
            if_version=if_version,
        )

    def retrieve(
        self,
        key: str,
        default: Any = MISSING,
        region: Any = None,
        copy: bool | None = None,
        device: str | None = None,
        like: Any = None,
        timeout: float | None = None,
    ) -> Any:
        """Return the value of `key`, wherever it lies.

        NumPy arrays come as read-only views, mutable objects freshly decoded, immutable ones as
        they are: changing what you get never changes what is stored.

        Args:
            key: The key it was stored under.
            default: What to return when the key is absent, instead of raising.
            region: An index (`np.s_[a:b, ...]`) of an array; only the chunks it touches are read.
            copy: True for a private, writable copy; False for the stored memory itself where the
                default is a private clone (tensors on a device): do not write to it.
            device: `"cpu"` or `"cuda:0"`: where the value, or the tensors in it, shall lie.
            like: `"torch"`, `"cupy"`, `"jax"` or `"numpy"`, or the module: whose array it shall be.
            timeout: Seconds to wait for a value in an archive class of the bucket, whose restore
                is started. Without it such a value raises at once.

        Raises:
            InvalidOptionError: the options contradict each other, or the value is no array.
            KeyNotFoundError: `key` is in no tier and no default was given.
            ArchivedError: it lies in an archive class; the message says how it comes back, and
                how long that takes.
            UnavailableError: the bucket it lies in did not answer.
            CorruptDataError: its bytes are damaged.
            UntrustedDataError: it would run code, and no trusted key has signed it.
        """
        # Parameters that are all positional, each compared for itself: keyword-only ones, or one
        # test of them together, make the plain call dearer.
        if (
            region is not None
            or copy is not None
            or device is not None
            or like is not None
            or timeout is not None
        ):
            return self._read_elsewhere(
                key, default, region=region, copy=copy, device=device, like=like, timeout=timeout
            )
        try:
            value = self._at_front[key]
            self._front.hits += 1.0
            return value.view() if type(value) is ndarray else value
        except (KeyError, TypeError):
            return self._read(key, default)

    def cache(
        self,
        function: Callable[..., Any] | None = None,
        *,
        version: int | str | None = None,
        ignore: Iterable[str] = (),
        key: Callable[..., Any] | None = None,
        ttl: float | None = None,
        tier: str = "auto",
    ) -> Any:
        """Decorate a function so that its results are kept in the tiers; bare or with options.

        The results are evictable: under pressure they may be dropped and computed again. A call
        returns what every later call will: a read-only array, say. An exception is not kept, and
        threads or tasks that ask for one result at once share one computation; if the one who
        computes is interrupted, another of them does. The decorated function has `cache_info()`,
        `cache_clear()` and `cache_key(...)`.

        A result is found again by the same function for the same arguments. A function is told by
        the file it stands in, its qualified name and its code, by its defaults and what it closes
        over, and by what it reads and calls in its own module; arguments by type and content.
        What changes elsewhere, in an imported module say, is told with `version`.

        Args:
            function: Anything that can be called and returns what can be stored: a function, a
                method, a coroutine function, a `partial`, a compiled function.
            version: Raise it when the function gives other results than before. Its code, what it
                calls and the globals that it reads no longer count then: results are kept across
                edits.
            ignore: Names of parameters, or of variables that the function or what it calls reads,
                that do not change the result.
            key: A function of the arguments whose value is hashed in their place.
            ttl: Seconds for which a result holds.
            tier: Where results are stored first. `"auto"` is the fastest with room, and with a
                `storage_path` a durable copy besides, written in the background.

        Raises:
            InvalidOptionError: an option means nothing.
            UnsupportedTypeError: this is no function, or a generator; from the calls, what the
                function reads, closes over or is given cannot be told from others of its kind.
        """
        options = {
            "version": version, "ignore": ignore, "key": key, "ttl": ttl, "tier": tier
        }  # fmt: skip
        if function is not None:
            return memoize(self, function, **options)
        return lambda decorated: memoize(self, decorated, **options)

    def store_many(self, mapping: Mapping[str, Any], tier: str = "auto") -> None:
        """Store every item of `mapping`; those before one that fails are stored."""
        for key, data in mapping.items():
            self.store(key, data, tier)

    def retrieve_many(self, keys: Iterable[str], *, timeout: float | None = None) -> dict[str, Any]:
        """Return the values of `keys`, by key; raises like `retrieve` if one is absent.

        What lies in a bucket is asked for all at once, so that many cost about as long as one.
        """
        wanted = [check_key(key) for key in keys]
        return self._engine.restored(
            wanted,
            check_seconds("timeout", timeout),
            lambda: read_together(self._hierarchy, wanted),
        )

    def delete(self, key: str) -> None:
        """Remove `key` from every tier.

        Raises:
            KeyNotFoundError: it is in no tier.
        """
        self._hierarchy.remove(check_key(key))

    def delete_prefix(self, prefix: str) -> int:
        """Remove every key that starts with `prefix`, and return how many there were.

        The room that they took on the disk is free then, but for what lies among other values.
        """
        return self._hierarchy.remove_prefix(prefix)

    def exists(self, key: str) -> bool:
        """Return whether `key` is in any tier; does not count as a read."""
        try:
            self._hierarchy.find(check_key(key))
        except KeyNotFoundError:
            return False
        return True

    def get_tier(self, key: str) -> str:
        """Return the name of the tier that answers for `key`; KeyNotFoundError if none does."""
        return str(self._hierarchy.find(check_key(key)).tier)

    def modify(self, key: str, fn: Callable[[Any], Any]) -> Any:
        """Replace the value of `key` by `fn(value)`, atomically for this key, and return it.

        `fn` gets a private writable copy. The new version stays in the tier of the old one.
        """
        return self._hierarchy.operations.run(self._modify, check_key(key), fn)

    def scan(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys that start with `prefix`, ordered by their UTF-8 bytes."""
        self._hierarchy.require_readable()
        for key in self._hierarchy.catalog.keys(prefix):
            if self.exists(key):
                yield key

    def find(self, **metadata: Any) -> Iterator[str]:
        """Yield the keys whose metadata has every one of these items, in key order.

        Raises:
            InvalidOptionError: one of them can be in no metadata.
        """
        return self._found(question(metadata))

    def _found(self, answers: Callable[[Mapping[str, Any]], bool]) -> Iterator[str]:
        for key in self.scan():
            try:
                known = self._hierarchy.find(key).terms.metadata
            except KeyNotFoundError:
                continue  # Removed since it was listed.
            if answers(known):
                yield key

    def __getitem__(self, key: str) -> Any:
        try:
            value = self._at_front[key]
            self._front.hits += 1.0
            return value.view() if type(value) is ndarray else value
        except (KeyError, TypeError):
            pass
        try:
            return self._read(key)
        except KeyNotFoundError:
            # Whoever lists the keys and reads them in one breath gets what he was shown.
            moment = self._hierarchy.expiry.moment(sys._getframe(1))
            if moment is None:
                raise
            return self._hierarchy.get(key, moment)

    def __setitem__(self, key: str, data: Any) -> None:
        self.store(key, data)

    def __delitem__(self, key: str) -> None:
        self.delete(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.exists(key)

    def __iter__(self) -> Iterator[str]:
        return self.scan()

    def __len__(self) -> int:
        self._hierarchy.require_readable()
        return len(self._hierarchy)

    def keys(self) -> KeysView[str]:
        """Return a view of the keys."""
        return KeyView(self)

    def items(self) -> ItemsView[str, Any]:
        """Return a view of keys and values; a key that goes before its turn is left out."""
        return ItemView(self)

    def values(self) -> ValuesView[Any]:
        """Return a view of the values; one whose key goes before its turn is left out."""
        return ValueView(self)

    def update(self, other: Any = (), /, **kwds: Any) -> None:
        """Store every item of a mapping, or of an iterable of pairs, and those given by name."""
        super().update(other.items() if isinstance(other, Values) else other, **kwds)

    def popitem(self) -> tuple[str, Any]:
        """Remove the first key and return it with its value; KeyNotFoundError if there is none."""
        for key in self.scan():
            value = self.pop(key, _GONE)
            if value is not _GONE:
                return key, value
        raise KeyNotFoundError("nothing is stored")

    def pop(self, key: str, default: Any = MISSING) -> Any:
        """Remove `key` and return its value, atomically for this key."""
        return self._hierarchy.operations.run(self._pop, check_key(key), default)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`, storing `default` first if it is absent, atomically."""
        return self._hierarchy.operations.run(self._setdefault, check_key(key), default)

    def _modify(self, key: str, fn: Callable[[Any], Any]) -> Any:
        with self._hierarchy.locks.hold(key):
            found = self._hierarchy.find(key)
            value = self._hierarchy.operations.callers(fn, self.retrieve(key, copy=True))
            self._put(key, value, found.tier, found.terms)
        return value

    def _pop(self, key: str, default: Any) -> Any:
        with self._hierarchy.locks.hold(key):
            try:
                value = self.retrieve(key, copy=True)
            except KeyNotFoundError:
                if default is MISSING:
                    raise
                return default
            try:
                self._hierarchy.remove(key)
            except KeyNotFoundError:
                pass  # Its time has come since it was read.
        return value

    def _setdefault(self, key: str, default: Any) -> Any:
        with self._hierarchy.locks.hold(key):
            if not self.exists(key):
                self.store(key, default)
            return self.retrieve(key, default)

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def _read(self, key: str, default: Any = MISSING) -> Any:
        """Return the value of a key that is not at the front, and bring it there if it is busy."""
        try:
            entry = self._entries.get(key)
        except TypeError:
            return self._read_elsewhere(key, default)  # It is no key at all.
        if entry is None:
            value = self._hierarchy.quick(key)
            return self._read_elsewhere(key, default) if value is UNKNOWN else value
        try:
            value = entry.read()
        except UNREADABLE as error:
            raise about_key(error, key) from error.__cause__
        except KeyError:
            return self._read_elsewhere(key, default)  # It has expired.
        if entry.hits > EXACT_HITS:
            self._hierarchy.catalog.bring_forward(entry)
        return value

    def _read_elsewhere(
        self,
        key: str,
        default: Any,
        *,
        region: Any = None,
        copy: bool | None = None,
        device: str | None = None,
        like: Any = None,
        timeout: float | None = None,
    ) -> Any:
        key, wish = check_key(key), ReadOptions(region, copy, device, like)
        try:
            return self._engine.restored(
                [key],
                check_seconds("timeout", timeout),
                lambda: self._engine.retrieve(key, wish),
            )
        except KeyNotFoundError:
            if default is MISSING:
                raise
            return default

    def _store_result(self, key: str, data: Any, *, tier: str, ttl: float | None) -> None:
        """Store what can be computed again: it may be dropped for room, whatever `on_full` says."""
        terms = make_terms(
            ttl=ttl, metadata=None, pin=False, min_tier=None, max_tier=None,
            now=self._engine.clock.wall,
        )  # fmt: skip
        wanted = None if tier == "auto" else self._hierarchy.tier(check_tier(tier)).name
        self._hierarchy.require_writable()
        self._put(key, data, wanted, msgspec.structs.replace(terms, evictable=True))
        if wanted is None and self._engine.kept:
            self._engine.backing.ask(key)

    def _put(self, key: str, value: Any, tier: TierName | None, terms: Terms) -> None:
        self._hierarchy.put(key, self._taken_in(key, value), tier=tier, terms=terms)

    def _taken_in(
        self, key: str, data: Any, *, copy: bool = True, written: bool = False
    ) -> Payload:
        """Return a caller's value as a payload; warn if readers may not know its classes."""
        with main_classes.watched() as names:
            payload = Payload.borrowed(data) if written else Payload.of(data, copy=copy)
        if names and self._engine.outlives:
            main_classes.warn(key, names)
        return payload
