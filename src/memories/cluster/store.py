"""Frames by key on many nodes: small ones in registers, large ones in chunks that a register names.

A large value becomes visible when its register is written, and so as a whole, like a small one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from memories.cluster.chunks import ChunkStore
from memories.cluster.manifest import (
    INLINE_BYTES,
    UPLOAD_SECONDS,
    ChunkManifest,
    new_upload,
    read_manifest,
)
from memories.cluster.register_api import FoundRegister, RegisterBody, Registers, WrittenRegister
from memories.cluster.register_format import RegisterKind, key_of, register_name
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

_READ_ATTEMPTS = 5  # Reads of a value that is replaced during each of them.


class StoredFrame(NamedTuple):
    """A frame that was read from the nodes; its checksums have been compared."""

    version: RegisterVersion
    frame: memoryview


class FrameStore:
    """Stores, reads and deletes frames by key."""

    def __init__(self, registers: Registers, chunks: ChunkStore, clock: Clock) -> None:
        self._registers = registers
        self._chunks = chunks
        self._clock = clock

    def put(
        self, key: str, segments: Sequence[memoryview], *, if_version: int | None = None
    ) -> RegisterVersion:
        """Store the frame that `segments` form one after the other.

        Raises:
            UnavailableError: too few nodes answer; nothing was stored.
            ReplicationError: it is on fewer nodes than required.
            ConflictError: the key is not at `if_version`.
        """
        name = register_name(key)
        nbytes = sum(segment.nbytes for segment in segments)
        if nbytes <= INLINE_BYTES:
            body = RegisterBody(RegisterKind.VALUE, segments)
            return self._write_one(name, body, if_version)
        upload, chunk_bytes = new_upload(nbytes, self._clock.wall())
        began = self._clock.monotonic()
        sums = self._chunks.write(upload, chunk_bytes, segments)
        if self._clock.monotonic() - began > UPLOAD_SECONDS:
            self._chunks.remove(upload)
            raise UnavailableError(
                f"storing {key[:200]!r} took longer than {UPLOAD_SECONDS / 3600:.0f} hours, after "
                "which a repair may remove its parts as garbage; nothing has changed"
            )
        manifest = ChunkManifest(upload, nbytes, chunk_bytes, sums).pack()
        try:
            return self._write_one(
                name, RegisterBody(RegisterKind.MANIFEST, [memoryview(manifest)]), if_version
            )
        except (UnavailableError, ConflictError) as error:
            # After a ReplicationError the write is in doubt: a node may have the manifest.
            if not isinstance(error, ReplicationError):
                self._chunks.remove(upload)
            raise

    def put_many(
        self, frames: Mapping[str, Sequence[memoryview]]
    ) -> dict[str, RegisterVersion | Exception]:
        """Store many frames; the small ones take few requests to each node."""
        results: dict[str, RegisterVersion | Exception] = {}
        small = {
            key: RegisterBody(RegisterKind.VALUE, segments)
            for key, segments in frames.items()
            if sum(segment.nbytes for segment in segments) <= INLINE_BYTES
        }
        outcomes = self._registers.write({register_name(key): small[key] for key in small})
        for key in frames:
            if key in small:
                results[key] = self._expire_replaced(outcomes[register_name(key)])
                continue
            try:
                results[key] = self.put(key, frames[key])
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
        names = {register_name(key): key for key in keys}
        found = self._registers.read(list(names))
        return {key: self._to_frame(key, found[name]) for name, key in names.items()}

    def delete(self, key: str) -> RegisterVersion:
        """Delete `key`, by a tombstone in its register.

        Raises:
            KeyNotFoundError: it is absent already.
            UnavailableError: too few nodes answer; nothing has changed.
            ReplicationError: the tombstone is on fewer nodes than required.
        """
        name = register_name(key)
        found = _raise_or_return(self._registers.read([name], fetch=False)[name])
        if found is None or found.kind is RegisterKind.TOMBSTONE:
            raise absent_error(key)
        return self._write_one(name, RegisterBody(RegisterKind.TOMBSTONE), None)

    def versions(self, keys: Iterable[str]) -> dict[str, RegisterVersion | Exception | None]:
        """Return the newest version of each key, None where it is absent, without its value."""
        names = {register_name(key): key for key in keys}
        found = self._registers.read(list(names), fetch=False)
        return {key: _version(found[name]) for name, key in names.items()}

    def scan(self, prefix: str) -> Iterator[str]:
        """Yield the keys that start with `prefix`, ordered by their UTF-8 bytes.

        Their names are held in memory. A key that is stored or deleted meanwhile may be missing.

        Raises:
            UnavailableError: too few nodes answer to list all of them.
        """
        names = sorted({n for batch in self._registers.scan(prefix.encode()) for n in batch})
        for start in range(0, len(names), 500):
            found = self._registers.read(names[start : start + 500], fetch=False)
            for name, one in found.items():
                present = _raise_or_return(one)
                if present is not None and present.kind is not RegisterKind.TOMBSTONE:
                    yield key_of(name)

    def _write_one(
        self, name: bytes, body: RegisterBody, if_version: int | None
    ) -> RegisterVersion:
        outcome = self._registers.write({name: body}, if_version=if_version)[name]
        result = self._expire_replaced(outcome)
        if isinstance(result, Exception):
            raise result
        return result

    def _expire_replaced(self, outcome: WrittenRegister | Exception) -> RegisterVersion | Exception:
        """Expire the chunks that a write replaced; return its version, or its error."""
        if isinstance(outcome, Exception):
            return outcome
        if outcome.replaced is not None:
            self._chunks.expire(outcome.replaced)
        return outcome.version

    def _to_frame(
        self, key: str, found: FoundRegister | Exception | None
    ) -> StoredFrame | Exception:
        name = register_name(key)
        error: Exception = UnavailableError(f"{key[:200]!r} is replaced faster than it can be read")
        for _ in range(_READ_ATTEMPTS):
            if isinstance(found, Exception):
                return found
            if found is None or found.kind is RegisterKind.TOMBSTONE:
                return absent_error(key)
            assert found.body is not None
            if found.kind is RegisterKind.VALUE:
                return StoredFrame(found.version, found.body)
            try:
                return StoredFrame(found.version, self._read_chunks(found.body))
            except (CorruptDataError, UnavailableError) as fault:
                # Thread 1 has read the manifest. Thread 2 replaces the value, and its chunks
                # expire. Thread 1 reads the register again, and finds a newer version.
                error = type(fault)(f"{key[:200]!r} cannot be read: {fault}")
                newer = self._registers.read([name])[name]
                if isinstance(newer, FoundRegister) and newer.version == found.version:
                    return error
                found = newer
        return error

    def _read_chunks(self, body: memoryview) -> memoryview:
        manifest = read_manifest(body)
        frame = view_bytes(allocate(manifest.nbytes))
        self._chunks.read(manifest, frame)
        return frame.toreadonly()


def absent_error(key: str) -> KeyNotFoundError:
    """Return the error for a key that is absent, as enough nodes have confirmed."""
    return KeyNotFoundError(f"{key[:200]!r} is not on the nodes")


def _raise_or_return(found: FoundRegister | Exception | None) -> FoundRegister | None:
    if isinstance(found, Exception):
        raise found
    return found


def _version(found: FoundRegister | Exception | None) -> RegisterVersion | Exception | None:
    if found is None or isinstance(found, Exception):
        return found
    return None if found.kind is RegisterKind.TOMBSTONE else found.version
