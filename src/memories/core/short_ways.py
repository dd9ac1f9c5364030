"""The short ways of a manager: reads, stores and removals of ordinary values in RAM.

A read looks into a dict of the front cache first, without a further call, and must stay about as
cheap as a look into a dict. A store is tried by `Residency` first. Everything else takes the long
way, through the reader, the writer and the hierarchy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from numpy import ndarray

from memories.compiled import core, mypyc_attr
from memories.core.read_options import ReadOptions
from memories.core.value_reader import MISSING
from memories.engine.cold_reader import NOT_READ, ColdReader
from memories.engine.front_cache import EXACT_HITS, FrontCache, FrontSource
from memories.engine.residency import MOST_BYTES, Residency
from memories.errors import UNREADABLE
from memories.foundation.keys import check_key
from memories.foundation.unchecked import Unchecked
from memories.model.entry import ArrayEntry, Entry, SharedEntry
from memories.model.tiers import StoreTier, TierChoice
from memories.options.choices import ArrayLibrary
from memories.options.settings import check_seconds

if TYPE_CHECKING:
    from memories.cluster.near_cache.freshness import Freshness
    from memories.core.value_reader import ValueReader
    from memories.core.value_writer import ValueWriter
    from memories.engine.hierarchy import Hierarchy

# Compiled code looks up what another module defines in a dict, at each hit; these it does not.
ARRAY: Final = ndarray
ABSENT: Final = MISSING
UNREAD: Final[Any] = NOT_READ
NOT_NOW: Final = (TypeError, KeyError, *UNREADABLE)
ATOMS: Final = frozenset((int, float, complex, bool, type(None)))
# Compiled code has no frame: what it calls sees the frame of its caller as the next one.
CALLER = 1 if core().compiled else 2


@mypyc_attr(allow_interpreted_subclasses=True)
class ShortWays:
    """Reads, stores and removes by key; the base class of the managers."""

    def _attach_ways(self, hierarchy: Hierarchy, reader: ValueReader, writer: ValueWriter) -> None:
        """Use the parts that do the work."""
        self._hierarchy: Hierarchy = hierarchy
        self._residency: Residency = hierarchy.residency
        self._reader: ValueReader = reader
        self._writer: ValueWriter = writer
        self._read: Callable[..., Any] = reader.read
        self._request_front: Callable[[str], None] = reader.request_front
        self._cold: ColdReader = hierarchy.cold_reader
        self._entries: dict[str, Entry] = reader.entries
        self._front: FrontCache = reader.front
        self._at_front: dict[str, FrontSource] = reader.front.sources

    def store(
        self,
        key: Unchecked[str],
        data: Any,
        tier: Unchecked[StoreTier] = "auto",
        *,
        ttl: Unchecked[float | None] = None,
        metadata: Unchecked[Mapping[str, Any] | None] = None,
        pin: Unchecked[bool] = False,
        min_tier: Unchecked[TierChoice | None] = None,
        max_tier: Unchecked[TierChoice | None] = None,
        volatile: Unchecked[bool] = False,
        copy: Unchecked[bool] = True,
        if_version: Unchecked[int | None] = None,
        evictable: Unchecked[bool] = False,
    ) -> None:
        """Store `data` under `key`, replacing what was there.

        Args:
            key: A `str` of 1 to 4,096 bytes in UTF-8, without NUL.
            data: Any value that has a codec or can be pickled. No other thread may change it before
                this returns.
            tier: The tier that holds it when this returns: `"hot"`, `"warm"`, `"cold"`,
                `"glacier"`, or `"auto"` for the fastest with room. A value larger than the tier
                goes to the next slower one that can hold it.
            ttl: Seconds to live.
            metadata: Data about the value: names with numbers, texts, dates, UUIDs, enums and
                the like, and lists, tuples, sets and dicts of them; `find` searches it.
            pin: Forbid moving and evicting it.
            min_tier: The fastest tier that may hold it.
            max_tier: The slowest tier that may hold it.
            volatile: Allow that a crash loses an overwrite of a durable key: the key is then
                absent, never old.
            copy: False gives the memory of `data` away; do not write to it afterwards.
            if_version: Store only if the key is at this version (0: absent).
            evictable: Allow that it is dropped where it has to leave a tier and there is no room
                for it below, like an entry of a cache: nothing promises that it is there later.
                With `max_tier="warm"` it is dropped instead of written to the disk.

        Raises:
            InvalidKeyError: `key` cannot be a key.
            InvalidOptionError: an option is invalid, or contradicts another.
            UnsupportedTypeError: `data` cannot be serialised.
            TierFullError: there is no room for it; nothing has changed.
            ConflictError: the key is at another version than `if_version`.
        """
        key = check_key(key)
        if (
            ttl is None
            and metadata is None
            and min_tier is None
            and max_tier is None
            and if_version is None
            and copy
            and not (pin or volatile or evictable)
            and self._residency.store(key, data, tier)
        ):
            return
        self._writer.store(
            key, data, tier, ttl=ttl, metadata=metadata, pin=pin, min_tier=min_tier,
            max_tier=max_tier, volatile=volatile, copy=copy, if_version=if_version,
            evictable=evictable,
        )  # fmt: skip

    def retrieve(
        self,
        key: Unchecked[str],
        default: Any = ABSENT,
        region: Any = None,
        copy: Unchecked[bool | None] = None,
        device: Unchecked[str | None] = None,
        like: Unchecked[ArrayLibrary | ModuleType | None] = None,
        timeout: Unchecked[float | None] = None,
    ) -> Any:
        """Return the value of `key`, from whichever tier holds it.

        NumPy arrays are returned as read-only views, mutable objects freshly decoded, immutable
        ones as they are: changing a returned value never changes what is stored.

        Args:
            key: The key it was stored under.
            default: Returned when the key is absent, instead of raising.
            region: An index (`np.s_[a:b, ...]`) of an array, or a slice or an int for bytes and
                bytearrays: `value[region]` is returned, and only the chunks in it are read.
            copy: True for a private, writable copy; False for the stored memory itself where the
                default is a private clone (tensors on a device): do not write to it.
            device: `"cpu"` or `"cuda:0"`: where the value, or the tensors in it, are placed.
            like: `"torch"`, `"cupy"`, `"jax"` or `"numpy"`, or the module: the array's library.
            timeout: Seconds to wait for a value in an archive class of the bucket, whose restore
                is started. Without it such a value raises at once.

        Raises:
            InvalidOptionError: the options contradict each other, or the value has no regions.
            IndexError: `region` is out of bounds.
            KeyNotFoundError: `key` is in no tier and no default was given.
            ArchivedError: it is in an archive class; the message says how to restore it, and
                how long that takes.
            UnavailableError: the bucket that holds it did not answer.
            CorruptDataError: its bytes are damaged.
            UntrustedDataError: it would run code, and no trusted key has signed it.
        """
        # All parameters are positional, and each is compared separately: keyword-only parameters,
        # or one test of all of them, make the plain call slower.
        if (
            region is not None
            or copy is not None
            or device is not None
            or like is not None
            or timeout is not None
        ):
            options = ReadOptions(region, copy, device, like)
            return self._reader.read_as(key, default, options, check_seconds("timeout", timeout))
        try:
            source = self._at_front.get(key)
            if source is not None:
                source.hits += 1.0
                value = source.payload
                return value.view() if type(value) is ARRAY else value
            value = self._read_entry(key)
            if value is ABSENT:
                value = self._read_cold(key)
        except TypeError:
            value = ABSENT  # An unhashable object, which `check_key` refuses.
        return self._read(key, default) if value is ABSENT else value

    def __getitem__(self, key: Unchecked[str]) -> Any:
        try:
            source = self._at_front.get(key)
            if source is not None:
                source.hits += 1.0
                value = source.payload
                return value.view() if type(value) is ARRAY else value
            value = self._read_entry(key)
            if value is ABSENT:
                value = self._read_cold(key)
        except TypeError:
            value = ABSENT
        return self._reader.read_listed(key, CALLER) if value is ABSENT else value

    def _read_entry(self, key: str) -> Any:
        """Return what the entry of `key` holds; ABSENT if there is none, or more is to be done."""
        entry = self._entries.get(key)
        if entry is None:
            return ABSENT
        kind = type(entry)
        if kind is not SharedEntry and (kind is not ArrayEntry or type(entry.payload) is not ARRAY):
            return ABSENT
        value: Any = entry.read()
        if entry.hits > EXACT_HITS:
            self._request_front(key)
        return value

    def _read_cold(self, key: str) -> Any:
        """Return a small value of cold; ABSENT if RAM has the key, or more is to be done."""
        if key in self._entries:
            return ABSENT
        value: Any = self._cold.read(check_key(key))
        return ABSENT if value is UNREAD else value

    def _retrieve_now(self, key: Unchecked[str]) -> Any:
        """Return a value that RAM holds and that is built at once; ABSENT if it takes longer."""
        try:
            source = self._at_front.get(key)
            if source is not None:
                source.hits += 1.0
                value = source.payload
                return value.view() if type(value) is ARRAY else value
            value = self._read_entry(key)
            if value is ABSENT:
                entry = self._entries.get(key)
                if entry is not None and entry.size <= MOST_BYTES:
                    value = entry.read()
        except NOT_NOW:
            return ABSENT  # It has expired, cannot be read or is no key: the long way says which.
        return value

    def _attach_near(self, near: Freshness, monotonic: Callable[[], float]) -> None:
        """Read the local copies of values on nodes, too."""
        self._near: Freshness = near
        self._monotonic: Callable[[], float] = monotonic

    def _retrieve_fresh(self, key: Unchecked[str]) -> Any:
        """Return the local copy of a value on nodes, if it is the newest; ABSENT as above, too."""
        try:
            if self._near.fresh_until > self._monotonic():
                name = self._near.fresh.get(key)
                if name is not None:
                    return self._retrieve_now(name)
        except TypeError:
            pass  # An unhashable object, which `check_key` refuses.
        return ABSENT

    def _store_now(self, key: Unchecked[str], data: Any, tier: Unchecked[StoreTier]) -> bool:
        """Store a small value if that is done at once; return whether it is stored."""
        kind = type(data)
        if kind is bytes or kind is str:
            small = len(data) <= MOST_BYTES
        elif kind is ARRAY:
            small = data.nbytes <= MOST_BYTES
        else:
            small = kind in ATOMS
        return small and self._residency.store(check_key(key), data, tier)

    def _delete_now(self, key: Unchecked[str]) -> bool:
        """Remove a key that only RAM has; return whether it is removed."""
        return self._residency.remove(check_key(key))

    def _exists_now(self, key: Unchecked[str]) -> bool:
        """Return whether RAM has a key; another tier may have it if not."""
        return self._residency.has(key)

    def delete(self, key: Unchecked[str]) -> None:
        """Remove `key` from every tier; KeyNotFoundError if it is in none."""
        key = check_key(key)
        if not self._residency.remove(key):
            self._hierarchy.remove(key)

    def exists(self, key: Unchecked[str]) -> bool:
        """Return whether `key` is in any tier; does not count as a read."""
        return self._residency.has(key) or self._reader.exists(check_key(key))
