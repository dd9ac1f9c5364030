"""A manager with a second key space, replicated on nodes.

Values on the nodes are independent of the tiers. This module turns values into frames and back;
`cluster` does everything else about nodes. Longer than 600 lines because it documents each call of
the public class.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, Unpack

import msgspec

from memories import codecs
from memories.cluster.connect import check_addresses, check_factor, check_nodes, open_service
from memories.cluster.manifest import INLINE_BYTES
from memories.cluster.near_cache.freshness import PREFIX as NEAR_PREFIX
from memories.cluster.near_cache.freshness import Freshness, FreshnessToken
from memories.cluster.node_service import NodeService
from memories.cluster.plain_body import is_plain, pack_plain, read_plain
from memories.cluster.quorum.vouchers import VoucherKeys
from memories.cluster.repair_report import RepairReport
from memories.cluster.seal import Fetch, NodeSeal, open_seal, rotate
from memories.cluster.store import StoredFrame
from memories.cluster.value_terms import NO_TERMS, ValueTerms
from memories.codecs import main_classes
from memories.core.distributed_view import DistributedInfo, DistributedView
from memories.core.explain import describe
from memories.core.manager import MemoryManager
from memories.core.near_cache import MOST_DROPPED, NearCacheStore
from memories.core.read_options import ReadOptions
from memories.core.value_reader import MISSING
from memories.engine.front_cache import EXACT_HITS
from memories.engine.payload import Payload
from memories.errors import (
    UNREADABLE,
    InvalidKeyError,
    InvalidKeyTypeError,
    InvalidOptionError,
    KeyNotFoundError,
    UnsupportedTypeError,
    about_key,
)
from memories.foundation.fork_lock import HeldLocks
from memories.foundation.keys import check_key, some_of
from memories.foundation.wrong_calls import explain_calls
from memories.frames.signing import Keyring
from memories.frames.store_binding import Signature
from memories.frames.writer import pack, pack_unsummed
from memories.model.events import Event, Removed
from memories.options.choices import ArrayLibrary, ManagerOptions
from memories.options.configured_constructor import configured
from memories.options.metadata import unpack
from memories.options.settings import check_items, check_several
from memories.options.store_terms import make_terms
from memories.progress import ProgressChoice, chosen
from memories.sealing.key_files import KeyRotation
from memories.sealing.master_key import EncryptionKey

NAMED_KEYS = 10  # In the note of a call with many keys.


@explain_calls(but=("retrieve_distributed",))  # A hit of it costs as little as one in RAM.
class DistributedMemoryManager(MemoryManager):
    """A `MemoryManager` that also stores values on several nodes, each on more than one.

    The methods named `..._distributed` use the key space of the nodes; all others are those of
    `MemoryManager` and stay local. Any `replication_factor - 1` nodes may fail at a time.

    Args:
        sizes: As for `MemoryManager`: hot, warm and cold memory size, and whether glacier is used.
        nodes: Servers that speak the protocol of Valkey and Redis: `"host:port"` or a `redis://`,
            `rediss://`, `valkey://` or `unix://` URL. Either plain servers or members of a Cluster.
            Or `"sentinel://host1:26379,host2:26379/service"`: the primary that Sentinels watch.
        replication_factor: The number of nodes that store each value.
        namespace: A key space of its own on the nodes: managers with another one neither see nor
            remove its keys.
        node_options: Options of all nodes whose URLs have none: `user`, `password`, `tls`,
            `timeout` in seconds, `max_connections` to each node, and those of redis-py for TLS.
            `sentinel_kwargs` has those of Sentinels, as in redis-py.
        allow_eviction: Accept nodes that are configured to drop values when they are full.
        strict_replication: Refuse writes to a primary of a Cluster whose replicas are gone, instead
            of acknowledging them with the copies that can be had. Plain servers always do.
        near_cache: Answer repeated reads from local memory; the nodes report changes.
        options: All other options of `MemoryManager`.

    Raises:
        InvalidOptionError: an option is invalid, or does not suit the nodes.
        UnavailableError: too few nodes answer.
    """

    _can_share = False  # It has connections of its own.

    @configured
    def __init__(
        self,
        *sizes: Any,
        nodes: Sequence[str] | str,
        replication_factor: int = 2,
        namespace: str = "",
        node_options: Mapping[str, Any] | None = None,
        allow_eviction: bool = False,
        strict_replication: bool = False,
        near_cache: bool = True,
        **options: Unpack[ManagerOptions],
    ) -> None:
        self._node_options = dict(node_options or {})
        addresses = check_nodes(nodes, self._node_options)
        factor, namespace = check_factor(replication_factor), _check_namespace(namespace)
        super().__init__(*sizes, **options)
        near_copies = NearCacheStore(self._hierarchy)
        try:
            with HeldLocks() as held:
                self._service: NodeService = open_service(
                    addresses,
                    factor,
                    clock=self._services.clock,
                    allow_eviction=allow_eviction,
                    strict=strict_replication,
                    keys=voucher_keys(self._hierarchy.trust),
                )
                # A separate object: references to it do not keep the manager alive.
                self._attach_near(Freshness(near_copies.drop), self._services.clock.monotonic)
        except BaseException:
            super().cleanup(flush=False)
            raise
        try:
            seal = self._open_seal(namespace)
        except BaseException:
            self._service.close()
            super().cleanup(flush=False)
            raise
        self._service.holds_lock = held.any_here
        self._copies = factor
        self._frames = self._service.frames(namespace, seal)
        self._trust = self._hierarchy.trust.for_nodes()
        self._near_copies = near_copies
        self._hierarchy.events.subscribe(_weak_observer(self._near), kinds=(Removed,))
        if near_cache:
            self._service.start_near_cache(self._near, namespace, seal)
        self._lifecycle.ends_before(self._service.close, "the connections to its nodes")

    @property
    def distributed(self) -> DistributedView:
        """The values on the nodes as a mapping: `manager.distributed["key"]`."""
        return DistributedView(self)

    def store_distributed(
        self,
        key: str,
        data: Any,
        *,
        ttl: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        if_version: int | None = None,
    ) -> None:
        """Store `data` under `key` on the nodes; when this returns, it is on enough of them.

        Args:
            key: A `str` of 1 to 4,096 bytes in UTF-8, without NUL.
            data: Any value that has a codec or can be pickled. Do not change it during the call.
            ttl: Seconds to live, by the clocks of the machines that read it.
            metadata: Data about the value, as for `store`; `info_distributed` returns it.
            if_version: Store only if the key is at this version (0: absent). On a Cluster only.

        Raises:
            UnavailableError: too few nodes answer; nothing was stored.
            ReplicationError: fewer nodes than required have it; the message names them.
            ConflictError: the key is at another version than `if_version`.
        """
        key = check_key(key)
        self._service.require_open(writing=True)
        terms = self._terms(ttl, metadata)
        try:
            self._frames.put(key, self._pack(key, data), terms=terms, if_version=if_version)
        finally:
            self._near.invalidate(key)

    def retrieve_distributed(
        self,
        key: str,
        default: Any = MISSING,
        region: Any = None,
        copy: bool | None = None,
        device: str | None = None,
        like: ArrayLibrary | ModuleType | None = None,
    ) -> Any:
        """Return the newest value of `key` on the nodes.

        Values are returned as from `retrieve`: read-only arrays, or with `copy=True` a private one.
        Repeated reads are answered from local memory while the value is known to be the newest; a
        write by another manager may be seen up to a second late, one by this manager at once.

        Args:
            key: The key it was stored under.
            default: Returned when the key is absent, instead of raising.
            region: An index (`np.s_[a:b, ...]`) of an array, or a slice or an int for bytes: of a
                large value only the chunks in it are received.
            copy: True for a private, writable copy.
            device: `"cpu"` or `"cuda:0"`: where the value, or the tensors in it, are placed.
            like: `"torch"`, `"cupy"`, `"jax"` or `"numpy"`, or the module: the array's library.

        Raises:
            InvalidOptionError: the options contradict each other, or the value has no regions.
            KeyNotFoundError: it is absent, and no default was given.
            UnavailableError: too few nodes answer.
            CorruptDataError: every reachable copy is damaged.
            UntrustedDataError: it would run code, and no trusted key has signed it.
        """
        # All parameters are positional: keyword-only ones make the plain call slower.
        default_form = region is None and copy is None and device is None and like is None
        if default_form:
            value = self._retrieve_fresh(key)
            if value is MISSING:
                value = self._fresh_copy(check_key(key))
            if value is not MISSING:
                return value
        key = check_key(key)
        self._service.require_open()
        try:
            if default_form:
                return self._read_nodes(key)
            return self._read_as(key, ReadOptions(region, copy, device, like))
        except KeyNotFoundError:
            if default is MISSING:
                raise
            return default

    def version_distributed(self, key: str) -> int:
        """Return the version of `key` on the nodes, for `if_version=`; 0 if it is absent.

        Raises:
            UnavailableError: too few nodes answer.
        """
        key = check_key(key)
        self._service.require_open()
        version = self._frames.versions([key])[key]
        if isinstance(version, Exception):
            raise version
        return 0 if version is None else version.counter

    def delete_distributed(self, key: str) -> None:
        """Remove `key` from the nodes.

        Raises:
            KeyNotFoundError: it is absent.
            UnavailableError: too few nodes answer; nothing has changed.
            ReplicationError: fewer nodes than required have removed it.
        """
        key = check_key(key)
        self._service.require_open(writing=True)
        try:
            self._frames.delete(key)
        finally:
            self._near.invalidate(key)

    def exists_distributed(self, key: str) -> bool:
        """Return whether `key` is on the nodes.

        Raises:
            UnavailableError: too few nodes answer.
        """
        return self.version_distributed(key) != 0

    def info_distributed(self, key: str) -> DistributedInfo:
        """Return what is known of `key` without reading its value: size, metadata, expiry.

        Raises:
            KeyNotFoundError: it is absent.
            UnavailableError: too few nodes answer.
        """
        key = check_key(key)
        self._service.require_open()
        found = self._frames.info(key)
        metadata, expires_ms = found.terms.metadata, found.terms.expires_ms
        return DistributedInfo(
            key=key,
            version=found.version.counter,
            size=found.nbytes,
            stored_at=found.version.at_seconds,
            expires_at=expires_ms / 1000 if expires_ms else None,
            metadata=unpack(msgspec.msgpack.decode(metadata)) if metadata else {},
        )

    def delete_many_distributed(self, keys: Iterable[str]) -> int:
        """Remove `keys` from the nodes, and return how many there were.

        Raises:
            UnavailableError: too few nodes answer for some; the others are removed.
            ReplicationError: some are removed from fewer nodes than required.
        """
        self._service.require_open(writing=True)
        wanted = [check_key(key) for key in check_several("keys", keys)]
        try:
            results = self._frames.delete_many(wanted)
        finally:
            for key in wanted:
                self._near.invalidate(key)
        present = {k: one for k, one in results.items() if not isinstance(one, KeyNotFoundError)}
        _raise_first(present, "removed")
        return len(present)

    def clear_distributed(self) -> int:
        """Remove every key of this manager's namespace from the nodes; return how many there were.

        Raises:
            UnavailableError: too few nodes answer; some keys may have been removed.
        """
        self._service.require_open(writing=True)
        try:
            return self._frames.clear()
        finally:
            self._near.invalidate_all()

    def store_many_distributed(
        self,
        mapping: Mapping[str, Any],
        *,
        ttl: float | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Store every item of `mapping` on the nodes, with a few requests to each.

        Args:
            mapping: The values by key.
            ttl: Seconds that each of them lives.
            metadata: Data about each of them.

        Raises:
            ReplicationError: some items are on too few nodes; the others are stored.
            UnavailableError: too few nodes answer for some items; the others are stored.
        """
        self._service.require_open(writing=True)
        terms, items = self._terms(ttl, metadata), check_items("mapping", mapping).items()
        frames = {key: self._pack(check_key(key), data) for key, data in items}
        try:
            results = self._frames.put_many(frames, terms=terms)
        finally:
            for key in frames:
                self._near.invalidate(key)
        _raise_first(results, "stored")

    def retrieve_many_distributed(
        self, keys: Iterable[str], default: Any = MISSING
    ) -> dict[str, Any]:
        """Return the values of `keys` on the nodes, or `default` for those that are absent.

        Raises like `retrieve_distributed` for one.
        """
        self._service.require_open()
        wanted = [check_key(key) for key in check_several("keys", keys)]
        missing, tokens = wanted, {}
        values: dict[str, Any] = dict.fromkeys(wanted, MISSING)
        if self._near.fresh_until > self._monotonic():
            values = {key: self._fresh_copy(key) for key in wanted}
            missing = [key for key in wanted if values[key] is MISSING]
            tokens = {key: self._near.token(key) for key in missing}
        results = self._frames.get_many(missing)
        if default is not MISSING:
            absent = [k for k, one in results.items() if isinstance(one, KeyNotFoundError)]
            for key in absent:
                values[key] = default
                del results[key]
        _raise_first(results, "read")
        for key, stored in results.items():
            assert isinstance(stored, StoredFrame)
            values[key] = self._open_frame(key, stored, tokens.get(key))
        return values

    def scan_distributed(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys on the nodes that start with `prefix`, ordered by their UTF-8 bytes."""
        self._service.require_open()
        if not isinstance(prefix, str):
            raise InvalidOptionError(f"a prefix must be a str, not {type(prefix).__name__}")
        return self._frames.scan(prefix)

    def get_node_status(self) -> dict[str, dict[str, Any]]:
        """Return the state of every node by name; a node that does not answer is not `online`."""
        self._service.require_open()
        return self._service.status()

    def repair(self, progress: ProgressChoice = None, *, deep: bool = True) -> RepairReport:
        """Repair every copy on the nodes, remove garbage, and return what was done.

        Reads and writes continue meanwhile. No stored value changes. A change of members that was
        interrupted is finished first.

        Args:
            progress: Called with the number of registers checked so far, and the approximate total;
                or True for a bar, or tqdm.
            deep: Read and verify every copy of large values, instead of checking its presence.
        """
        self._service.require_open(writing=True)
        return self._service.repair(chosen(progress, "repair", "{:,.0f}".format), deep=deep)

    def add_node(self, node: str, progress: ProgressChoice = None) -> None:
        """Add a node, and return when it holds its share of the keys.

        With n nodes, about one n-th of the keys moves; all keys can be read and written meanwhile.
        Of a node whose removal was interrupted, the removal is taken back.

        Raises:
            InvalidOptionError: another change is in progress, the node is not empty, or the nodes
                are a Cluster.
            UnavailableError: too many nodes do not answer; call again to finish.
        """
        self._change_members(add=node, progress=progress)

    def remove_node(
        self,
        node: str | Sequence[str],
        progress: ProgressChoice = None,
        *,
        lost: bool = False,
    ) -> None:
        """Remove one node or several, after their keys were copied to the others; they may be dead.

        If adding one was interrupted, that is taken back. Empty it before it is added again.

        Args:
            node: The node, or a list of them.
            progress: Called with the number of registers copied so far, and the approximate total;
                or True for a bar, or tqdm.
            lost: They are dead for good, and what only they had is given up: needed if
                `replication_factor` nodes or more are dead. Keys may then be absent or old.

        Raises:
            InvalidOptionError: one is not a member, too few are left, another change is in
                progress, one named as lost has its values, or the nodes are a Cluster.
            UnavailableError: too many nodes do not answer; call again to finish.
        """
        self._change_members(remove=node, lost=lost, progress=progress)

    def replace_node(
        self,
        old: str | Sequence[str],
        new: str | Sequence[str],
        progress: ProgressChoice = None,
        *,
        lost: bool = False,
    ) -> None:
        """Put one node, or several, in the place of others, which may be dead.

        This moves half as many keys as adding and removing one after the other. Arguments and
        errors are those of `add_node` and `remove_node`.
        """
        self._change_members(add=new, remove=old, lost=lost, progress=progress)

    def abandon_change(self) -> None:
        """Take back a change of members that was interrupted, here or in any other process.

        `get_node_status` shows such a change, and `repair` finishes it.

        Raises:
            InvalidOptionError: there is none, or it gives nodes up as lost.
            UnavailableError: too few nodes answer; call again.
        """
        self._service.require_open(writing=True)
        self._service.abandon_change()

    def _change_members(
        self,
        *,
        add: str | Sequence[str] = (),
        remove: str | Sequence[str] = (),
        lost: bool = False,
        progress: ProgressChoice,
    ) -> None:
        self._service.require_open(writing=True)
        added, removed = (
            check_addresses([names] if isinstance(names, str) else names, self._node_options)
            if names
            else []
            for names in (add, remove)
        )
        self._service.change_members(
            added,
            [address.name for address in removed],
            lost=lost,
            progress=chosen(progress, "rebalance", "{:,.0f}".format),
        )

    def rotate_key(self, to: str | EncryptionKey | None = None) -> KeyRotation:
        """Wrap the data keys of the nodes, and of the store, with the newest version of the key.

        As for `MemoryManager`; of a manager without `storage_path` those of the nodes.
        """
        self._service.require_open(writing=True)
        settings = self._services.settings
        if settings.encryption is None:
            return super().rotate_key(to)
        done = rotate(self._service.registers, settings.encryption, EncryptionKey.parse(to))
        return done if settings.storage_path is None else done.plus(super().rotate_key(to))

    def _open_seal(self, namespace: str) -> NodeSeal | None:
        """Return what encrypts the values on the nodes, if there is a key."""
        master = self._services.settings.encryption
        if master is None:
            return None
        return open_seal(self._service.registers, master, namespace)

    def cleanup(self, *, flush: bool = True) -> None:
        """Close the manager and its connections. Idempotent; values on the nodes stay there."""
        super().cleanup(flush=flush)
        self._service.close()  # In a forked child `super` does not close it.

    def __repr__(self) -> str:
        nodes, copies = sum(1 for _ in self._service.nodes()), self._copies
        cluster = f"{nodes} node{'s' * (nodes != 1)}, {copies} cop{'y' if copies == 1 else 'ies'}"
        return describe(self._services, type(self).__name__, cluster)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        raise UnsupportedTypeError(
            "a DistributedMemoryManager cannot be pickled, because it holds credentials: make one "
            "where it is needed"
        )

    def _memories_hashed_as(self) -> tuple[Any, ...]:
        raise UnsupportedTypeError(
            "a DistributedMemoryManager has no hash, because other processes change what it returns"
        )

    def _pack(self, key: str, data: Any) -> Sequence[memoryview]:
        """Return the bytes that the nodes store: a plain small value, or a frame."""
        plain = pack_plain(data)
        if plain is not None:
            return (memoryview(plain),)
        with main_classes.collect_names() as names:
            parts = codecs.encode(data)
        if names:
            main_classes.warn_about(key, names)
        stamp = int(self._services.clock.wall() * 1_000_000)
        # A value of that size is cut into chunks, which are summed themselves.
        make = pack if parts.nbytes <= INLINE_BYTES else pack_unsummed
        return make(parts, key=key, version=stamp, signer=self._trust).segments

    def _fresh_copy(self, key: str) -> Any:
        """Return the local copy of `key`, or MISSING if none is known to be fresh."""
        if self._near.fresh_until > self._monotonic():
            try:
                entry = self._entries[self._near.fresh[key]]
            except KeyError:
                return MISSING  # Not known to be fresh, or evicted.
            value = entry.read()
            if entry.hits > EXACT_HITS:
                self._hierarchy.catalog.request_front(entry.key)
            return value
        return MISSING

    def _read_nodes(self, key: str) -> Any:
        token = self._near.token(key)
        known = self._near.version(key)
        if known is not None and self._frames.versions([key])[key] == known:
            entry = self._entries.get(NEAR_PREFIX + key)
            if self._near.revalidate(key, known, token) and entry is not None:
                return entry.read()
        return self._open_frame(key, self._frames.get(key), token)

    def _read_as(self, key: str, options: ReadOptions) -> Any:
        """Return a value as `options` ask for it; only a region's chunks are received."""

        def read(fetch: Fetch, nbytes: int) -> Any:
            (first,) = fetch([(0, 1)])
            if is_plain(first):
                (body,) = fetch([(0, nbytes)])
                payload = Payload.of(read_plain(body))
            else:
                payload = Payload.of_ranges(fetch, nbytes, key=key, verified=True)
            return options.apply(key, payload, False, self._trust, self._services.device)

        try:
            if not options.whole:
                return self._frames.read_part(key, read)
            frame = self._frames.get(key).frame
            if is_plain(frame):
                payload = Payload.of(read_plain(frame))
            else:
                payload = Payload.of_frame(memoryview(frame), key=key, verified=True)
            return options.apply(key, payload, False, self._trust, self._services.device)
        except UNREADABLE as error:
            raise about_key(error, key) from error.__cause__

    def _terms(self, ttl: float | None, metadata: Mapping[str, Any] | None) -> ValueTerms:
        if ttl is None and metadata is None:
            return NO_TERMS
        terms = make_terms(
            ttl=ttl,
            metadata=metadata,
            pin=False,
            min_tier=None,
            max_tier=None,
            now=self._services.clock.wall,
        )
        expires_ms = 0 if terms.expires_at is None else max(1, int(terms.expires_at * 1000))
        packed = msgspec.msgpack.encode(terms.metadata) if terms.metadata else b""
        return ValueTerms(expires_ms, packed)

    def _open_frame(self, key: str, stored: StoredFrame, token: FreshnessToken | None) -> Any:
        """Return the value of a frame from the nodes, already verified.

        With a token a local copy is stored.
        """
        if is_plain(stored.frame):
            return self._open_plain(key, stored, token)
        trust = self._trust
        try:
            frame = memoryview(stored.frame)
            payload = Payload.of_frame(frame, key=key, verified=True)
            # Local copies do not expire.
            if not token or stored.terms.expires_ms or not self._make_room_for(payload.size):
                return payload.open(trust)
            hosted = payload.to_host(trust, copy=False)
            value = hosted.open(trust)
        except UNREADABLE as error:
            raise about_key(error, key) from error.__cause__
        self._near.insert(
            key, stored.version, token, lambda name: self._near_copies.put(name, hosted)
        )
        return value

    def _open_plain(self, key: str, stored: StoredFrame, token: FreshnessToken | None) -> Any:
        """Return a plain value from the nodes, and with a token store a local copy."""
        value = read_plain(stored.frame)
        if token and self._near.fresh_until > self._monotonic() and not stored.terms.expires_ms:
            hosted = Payload.of(value)
            if self._make_room_for(hosted.size):
                self._near.insert(
                    key, stored.version, token, lambda name: self._near_copies.put(name, hosted)
                )
        return value

    def _make_room_for(self, size: int) -> bool:
        """Return whether a local copy fits, after dropping older copies for it."""
        near = self._near
        if near.fresh_until <= self._monotonic() or not self._near_copies.could_fit(size):
            return False
        for _ in range(MOST_DROPPED):
            if self._near_copies.fits(size):
                return True
            oldest = near.oldest()
            if oldest is None:
                return False
            near.invalidate(oldest)
        return False


def voucher_keys(trust: Keyring) -> VoucherKeys:
    """Return how the keys of a user vouch for members, and which vouchers they accept."""
    return VoucherKeys(
        trust.own_id,
        lambda message: trust.attest(message).mac,
        lambda message, key, mac: trust.attested(message, Signature(key, mac)),
    )


def _weak_observer(near: Freshness) -> Callable[[Event], None]:
    """Return an observer that does not keep `near` alive: `near` refers to the observed events."""
    method = weakref.WeakMethod(near.observe)

    def observe(event: Event) -> None:
        found = method()
        if found is not None:
            found(event)

    return observe


def _check_namespace(namespace: Any) -> str:
    if namespace == "":
        return ""
    try:
        return check_key(namespace)
    except (InvalidKeyError, InvalidKeyTypeError) as error:
        raise InvalidOptionError(
            f"namespace={namespace!r:.80} must be like a key: {error}"
        ) from error


def _raise_first(results: Mapping[str, Any], verb: str) -> None:
    """Raise the first error among `results`; its note says which others were `verb`."""
    failed = {key: result for key, result in results.items() if isinstance(result, Exception)}
    for error in failed.values():
        if len(results) > 1:
            done, names = len(results) - len(failed), some_of(failed, NAMED_KEYS)
            error.add_note(f"{done} of {len(results)} values were {verb}, not {names}")
        raise error
