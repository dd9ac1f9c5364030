"""Frames by key on many nodes: small ones in registers, large ones in chunks that a register names.

A large value becomes visible when its register is written, and so as a whole, like a small one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from memories.cluster.chunks import ChunkStore
from memories.cluster.manifest import (
    INLINE_BYTES,
    UPLOAD_SECONDS,
    ChunkManifest,
    read_manifest,
)
from memories.cluster.register_api import FoundRegister, Registers, WrittenRegister
from memories.cluster.register_format import (
    PREFIX,
    Buffer,
    RegisterBody,
    RegisterKind,
    name_prefix,
)
from memories.cluster.seal import Fetch, NodeSeal
from memories.cluster.settling import Settling
from memories.cluster.value_terms import (
    NO_TERMS,
    ValueTerms,
    is_expired,
    read_expiry,
    split_terms,
)
from memories.cluster.versions import RegisterVersion
from memories.codecs.buffers import allocate, view_bytes
from memories.errors import (
    ConflictError,
    CorruptDataError,
    KeyNotFoundError,
    ReplicationError,
    UnavailableError,
)
from memories.foundation.clock import Clock

T = TypeVar("T")

_CHUNK_GRACE_MS = 60_000  # Chunks outlive their value: a read that began before it expired ends.
_READ_ATTEMPTS = 5  # Reads of a value that is replaced during each of them.


class StoredFrame(msgspec.Struct, frozen=True, gc=False):
    """A frame that was read from the nodes; its checksums have been compared."""

    version: RegisterVersion
    frame: Buffer
    terms: ValueTerms = NO_TERMS


class FrameInfo(NamedTuple):
    """What a register says of a frame."""

    version: RegisterVersion
    nbytes: int
    terms: ValueTerms


class FrameStore:
    """Stores, reads and deletes frames by key, in one namespace of the nodes."""

    def __init__(
        self,
        registers: Registers,
        chunks: ChunkStore,
        clock: Clock,
        settling: Settling,
        namespace: str = "",
        seal: NodeSeal | None = None,
    ) -> None:
        """Use one namespace; with `seal`, which is for it, everything in it is encrypted."""
        self._registers = registers
        self._chunks = chunks
        self._clock = clock
        self._settling = settling
        self._seal = seal
        self._prefix = name_prefix(namespace) if seal is None else seal.prefix

    def put(
        self,
        key: str,
        segments: Sequence[memoryview],
        *,
        terms: ValueTerms = NO_TERMS,
        if_version: int | None = None,
    ) -> RegisterVersion:
        """Store the frame that `segments` form one after the other.

        Raises:
            UnavailableError: too few nodes answer; nothing was stored.
            ReplicationError: it is on fewer nodes than required.
            ConflictError: the key is not at `if_version`.
        """
        if self._seal is not None:
            segments = self._seal.frame(key, segments)
            terms = self._sealed_terms(key, terms)
        return self._put(key, segments, terms, if_version)

    def _put(
        self, key: str, segments: Sequence[memoryview], terms: ValueTerms, if_version: int | None
    ) -> RegisterVersion:
        name = self._name(key)
        nbytes = _total_bytes(segments)
        if nbytes <= INLINE_BYTES:
            return self._write_one(name, _value_body(segments, terms), terms, if_version)
        upload, chunk_bytes = self._chunks.new_upload(nbytes, self._clock.wall())
        began = self._clock.monotonic()
        ttl_ms = None
        if terms.expires_ms:
            left = terms.expires_ms - self._clock.wall() * 1000
            ttl_ms = max(1, int(left) + _CHUNK_GRACE_MS)
        sums = self._chunks.write(upload, chunk_bytes, segments, ttl_ms=ttl_ms)
        if self._clock.monotonic() - began > UPLOAD_SECONDS:
            self._chunks.remove(upload)
            raise UnavailableError(
                f"storing {key[:200]!r} took longer than {UPLOAD_SECONDS / 3600:.0f} hours, after "
                "which a repair may remove its parts as garbage; nothing has changed"
            )
        manifest = ChunkManifest(upload, nbytes, chunk_bytes, sums).pack()
        try:
            return self._write_one(name, _manifest_body(manifest, terms), terms, if_version)
        except (UnavailableError, ConflictError) as error:
            # After a ReplicationError the write is in doubt: a node may have the manifest.
            if not isinstance(error, ReplicationError):
                self._chunks.remove(upload)
            raise

    def put_many(
        self, frames: Mapping[str, Sequence[memoryview]], *, terms: ValueTerms = NO_TERMS
    ) -> dict[str, RegisterVersion | Exception]:
        """Store many frames; the small ones take few requests to each node."""
        results: dict[str, RegisterVersion | Exception] = {}
        if self._seal is not None:
            frames = {key: self._seal.frame(key, segments) for key, segments in frames.items()}
        terms_of = {key: self._sealed_terms(key, terms) for key in frames}
        small = {
            key: _value_body(segments, terms_of[key])
            for key, segments in frames.items()
            if _total_bytes(segments) <= INLINE_BYTES
        }
        outcomes = self._registers.write({self._name(key): small[key] for key in small})
        for key in frames:
            if key in small:
                name = self._name(key)
                results[key] = self._finish_write(name, outcomes[name], terms)
                continue
            try:
                results[key] = self._put(key, frames[key], terms_of[key], None)
            except UnavailableError as error:
                results[key] = error
        return results

    def get(self, key: str) -> StoredFrame:
        """Return the newest frame of `key`.

        Raises:
            KeyNotFoundError: it is absent.
            UnavailableError: too few nodes answer to know the newest version.
            CorruptDataError: the copies are damaged on all nodes.
        """
        (result,) = self.get_many([key]).values()
        if isinstance(result, Exception):
            raise result
        return result

    def get_many(self, keys: Iterable[str]) -> dict[str, StoredFrame | Exception]:
        """Return the newest frame of each key, or the error that explains why there is none."""
        names = {self._name(key): key for key in keys}
        found = self._registers.read(list(names))
        frames = {key: self._to_frame(key, found[name]) for name, key in names.items()}
        if self._seal is None:
            return frames
        return {key: self._opened(self._seal, key, frame) for key, frame in frames.items()}

    def read_part(self, key: str, read: Callable[[Fetch, int], T]) -> T:
        """Return `read(fetch, nbytes)` of the newest frame of `key`; raises like `get`.

        `fetch` returns ranges of its bytes; of a large value only the chunks that they touch are
        received.
        """
        name = self._name(key)
        found = self._registers.read([name])[name]
        for _ in range(_READ_ATTEMPTS):
            present = self._require_present(key, found)
            try:
                fetch, nbytes = self._open_ranges(present)
                if self._seal is None:
                    return read(fetch, nbytes)
                return self._seal.read_part(key, read, fetch, nbytes)
            except (CorruptDataError, UnavailableError):
                newer = self._registers.read([name])[name]  # As in `_to_frame`.
                if isinstance(newer, FoundRegister) and newer.version == present.version:
                    raise
                found = newer
        raise _replaced_error(key)

    def info(self, key: str) -> FrameInfo:
        """Return what the register of `key` says of its frame; raises like `get`."""
        name = self._name(key)
        found = self._require_present(key, self._registers.read([name])[name])
        terms, body = _split_body(found)
        nbytes = read_manifest(body).nbytes if found.kind.is_manifest else body.nbytes
        if self._seal is not None:
            nbytes = self._seal.opened_length(nbytes)
            terms = terms._replace(metadata=self._seal.open_metadata(key, terms.metadata))
        return FrameInfo(found.version, nbytes, terms)

    def delete(self, key: str) -> RegisterVersion:
        """Delete `key`, by a tombstone in its register.

        Raises:
            KeyNotFoundError: it is absent already.
            UnavailableError: too few nodes answer; nothing has changed.
            ReplicationError: the tombstone is on fewer nodes than required.
        """
        (error,) = self.delete_many([key]).values()
        if isinstance(error, Exception):
            raise error
        return error

    def delete_many(self, keys: Iterable[str]) -> dict[str, RegisterVersion | Exception]:
        """Delete keys; the result of each is its tombstone, or the error that `delete` raises."""
        names = {self._name(key): key for key in keys}
        found = self._registers.read(list(names), fetch=False)
        results: dict[str, RegisterVersion | Exception] = {}
        bodies: dict[bytes, RegisterBody] = {}
        for name, key in names.items():
            one = found[name]
            if isinstance(one, Exception):
                results[key] = one
            elif self._is_present(name, one):
                bodies[name] = RegisterBody(RegisterKind.TOMBSTONE)
            else:
                results[key] = absent_error(key)
        for name, outcome in self._registers.write(bodies).items() if bodies else ():
            results[names[name]] = self._finish_write(name, outcome, NO_TERMS, deleted=True)
        return results

    def versions(self, keys: Iterable[str]) -> dict[str, RegisterVersion | Exception | None]:
        """Return the newest version of each key, None where it is absent, without its value."""
        names = {self._name(key): key for key in keys}
        found = self._registers.read(list(names), fetch=False)
        results: dict[str, RegisterVersion | Exception | None] = {}
        for name, key in names.items():
            one = found[name]
            if one is None or isinstance(one, Exception):
                results[key] = one
            else:
                results[key] = one.version if self._is_present(name, one) else None
        return results

    def scan(self, prefix: str) -> Iterator[str]:
        """Yield the keys that start with `prefix`, ordered by their UTF-8 bytes.

        Their names are held in memory. A key that is stored or deleted meanwhile may be missing.

        Raises:
            UnavailableError: too few nodes answer to list all of them.
        """
        keys = self._listed(prefix)
        for at in range(0, len(keys), 500):
            names = [name for _, name in keys[at : at + 500]]
            found = self._registers.read(names, fetch=False)
            for key, name in keys[at : at + 500]:
                one = found[name]
                if isinstance(one, Exception):
                    raise one
                if self._is_present(name, one):
                    yield key.decode()

    def _listed(self, prefix: str) -> list[tuple[bytes, bytes]]:
        """Return the keys that start with `prefix`, in their order, each with its register."""
        seal, begin = self._seal, prefix.encode()
        start = len(self._prefix)
        wanted = self._prefix if seal is not None else self._prefix + begin
        batches = self._registers.scan(wanted[len(PREFIX) :])
        listed = {name for batch in batches for name in batch}
        if seal is None:
            return sorted((name[start:], name) for name in listed if _is_key(name[start:]))
        opened = ((seal.open_key(name[start:]), name) for name in listed)
        keys = ((key.encode(), name) for key, name in opened if key is not None)
        return sorted(pair for pair in keys if pair[0].startswith(begin))

    def clear(self, prefix: str = "") -> int:
        """Delete all keys that start with `prefix`, and return how many there were.

        Raises:
            UnavailableError: too few nodes answer; some keys may have been deleted.
        """
        keys = list(self.scan(prefix))
        count = 0
        for at in range(0, len(keys), 500):
            for outcome in self.delete_many(keys[at : at + 500]).values():
                if isinstance(outcome, Exception) and not isinstance(outcome, KeyNotFoundError):
                    raise outcome
                count += not isinstance(outcome, Exception)
        return count

    def _name(self, key: str) -> bytes:
        seal = self._seal
        return self._prefix + (key.encode() if seal is None else seal.key(key))

    def _sealed_terms(self, key: str, terms: ValueTerms) -> ValueTerms:
        if self._seal is None or not terms.metadata:
            return terms
        return terms._replace(metadata=self._seal.metadata(key, terms.metadata))

    def _opened(
        self, seal: NodeSeal, key: str, found: StoredFrame | Exception
    ) -> StoredFrame | Exception:
        """Return a frame decrypted, or why it cannot be, with its key, which registers hide."""
        if isinstance(found, CorruptDataError | UnavailableError):
            return type(found)(f"{key[:200]!r} cannot be read: {found}")
        if isinstance(found, Exception):
            return found
        try:
            metadata = seal.open_metadata(key, found.terms.metadata)
            frame = seal.open_frame(key, memoryview(found.frame))
        except CorruptDataError as error:
            return CorruptDataError(f"{key[:200]!r} cannot be read: {error}")
        return StoredFrame(found.version, frame, found.terms._replace(metadata=metadata))

    def _is_present(self, name: bytes, found: FoundRegister | None) -> bool:
        """Return whether a register holds a value; if it held one, let it vanish."""
        if found is None:
            return False
        if found.kind is RegisterKind.TOMBSTONE:
            self._settling.deleted(name, found.version)
            return False
        expires_ms = _expiry_of(found)
        if is_expired(expires_ms, self._clock.wall()):
            self._settling.expires(name, found.version, expires_ms)
            return False
        return True

    def _require_present(self, key: str, found: FoundRegister | Exception | None) -> FoundRegister:
        if isinstance(found, Exception):
            raise found
        if found is None or not self._is_present(self._name(key), found):
            raise absent_error(key)
        return found

    def _write_one(
        self, name: bytes, body: RegisterBody, terms: ValueTerms, if_version: int | None
    ) -> RegisterVersion:
        outcome = self._registers.write({name: body}, if_version=if_version)[name]
        result = self._finish_write(name, outcome, terms)
        if isinstance(result, Exception):
            raise result
        return result

    def _finish_write(
        self,
        name: bytes,
        outcome: WrittenRegister | Exception,
        terms: ValueTerms,
        *,
        deleted: bool = False,
    ) -> RegisterVersion | Exception:
        """Expire the chunks that a write replaced; return its version, or its error."""
        if isinstance(outcome, Exception):
            if self._seal is not None:
                key = self._seal.open_key(name[len(self._prefix) :])
                outcome.add_note(f"the key of this register is {key!r:.200}")
            return outcome
        if outcome.replaced is not None:
            self._chunks.expire(outcome.replaced)
        if deleted:
            self._settling.deleted(name, outcome.version)
        elif terms.expires_ms:
            self._settling.expires(name, outcome.version, terms.expires_ms)
        return outcome.version

    def _to_frame(
        self, key: str, found: FoundRegister | Exception | None
    ) -> StoredFrame | Exception:
        if type(found) is FoundRegister and found.kind is RegisterKind.VALUE:
            assert found.body is not None
            return StoredFrame(found.version, found.body)  # Most values are small ones.
        name = self._name(key)
        error: Exception = _replaced_error(key)
        for _ in range(_READ_ATTEMPTS):
            if isinstance(found, Exception):
                return found
            if found is None:
                return absent_error(key)
            try:
                if not self._is_present(name, found):
                    return absent_error(key)
                terms, body = _split_body(found)
                frame = self._read_chunks(body) if found.kind.is_manifest else body
                return StoredFrame(found.version, frame, terms)
            except (CorruptDataError, UnavailableError) as fault:
                # Thread 1 has read the manifest. Thread 2 replaces the value, and its chunks
                # expire. Thread 1 reads the register again, and finds a newer version.
                error = type(fault)(f"{key[:200]!r} cannot be read: {fault}")
                newer = self._registers.read([name])[name]
                if isinstance(newer, FoundRegister) and newer.version == found.version:
                    return error
                found = newer
        return error

    def _open_ranges(self, found: FoundRegister) -> tuple[Fetch, int]:
        _, body = _split_body(found)
        if not found.kind.is_manifest:
            return (lambda spans: [body[start:stop] for start, stop in spans]), body.nbytes
        manifest = read_manifest(body)
        received: dict[int, memoryview] = {}

        def fetch(spans: Sequence[tuple[int, int]]) -> list[memoryview]:
            size = manifest.chunk_bytes
            touched = {i for start, stop in spans for i in range(start // size, -(-stop // size))}
            limits = list(manifest.spans())
            missing = {
                index: view_bytes(allocate(limits[index][1] - limits[index][0]))
                for index in touched - received.keys()
            }
            self._chunks.read_some(manifest, missing)
            received.update(missing)
            return [_cut(received, size, start, stop) for start, stop in spans]

        return fetch, manifest.nbytes

    def _read_chunks(self, body: memoryview) -> memoryview:
        manifest = read_manifest(body)
        frame = view_bytes(allocate(manifest.nbytes))
        self._chunks.read(manifest, frame)
        return frame.toreadonly()


def absent_error(key: str) -> KeyNotFoundError:
    """Return the error for a key that is absent, as enough nodes have confirmed."""
    return KeyNotFoundError(f"{key[:200]!r} is not on the nodes")


def _replaced_error(key: str) -> UnavailableError:
    return UnavailableError(f"{key[:200]!r} is replaced faster than it can be read")


def _is_key(name: bytes) -> bool:
    """Return whether a name on a node is that of a key in its namespace; others are not ours."""
    try:
        return not name.decode().startswith("\0")
    except UnicodeDecodeError:
        return False


def _total_bytes(segments: Sequence[memoryview]) -> int:
    return segments[0].nbytes if len(segments) == 1 else sum(one.nbytes for one in segments)


def _value_body(segments: Sequence[memoryview], terms: ValueTerms) -> RegisterBody:
    if terms is NO_TERMS or terms == NO_TERMS:
        return RegisterBody(RegisterKind.VALUE, segments)
    before, behind = terms.pack()
    return RegisterBody(RegisterKind.VALUE_WITH_TERMS, [before, *segments, behind])


def _manifest_body(manifest: bytes, terms: ValueTerms) -> RegisterBody:
    if terms == NO_TERMS:
        return RegisterBody(RegisterKind.MANIFEST, [memoryview(manifest)])
    before, behind = terms.pack()
    return RegisterBody(RegisterKind.MANIFEST_WITH_TERMS, [before, memoryview(manifest), behind])


def _split_body(found: FoundRegister) -> tuple[ValueTerms, memoryview]:
    assert found.body is not None
    body = memoryview(found.body)
    return split_terms(body) if found.kind.has_terms else (NO_TERMS, body)


def _expiry_of(found: FoundRegister) -> int:
    if found.body is None or not found.kind.has_terms:
        return found.expires_ms
    return read_expiry(found.body)


def _cut(chunks: Mapping[int, memoryview], size: int, start: int, stop: int) -> memoryview:
    """Return a range of a frame from its chunks; it is copied if it is in more than one."""
    first, last = start // size, max(start, stop - 1) // size
    pieces = [
        chunks[index][max(0, start - index * size) : stop - index * size]
        for index in range(first, last + 1)
        if start < stop
    ]
    return pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))
