"""How a tier keeps a payload: as an entry in RAM, or as a frame behind a backend.

Not a policy and not a map. A medium turns a parcel into its home form, keeps it, gives it back and
lets it go; those four verbs are all in which tiers differ.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from memories.backends.base import Backend
from memories.codecs.base import carries_code
from memories.engine.budget import BackendLedger, Ledger
from memories.engine.hit_clock import HitCounter
from memories.engine.payload import Parcel, owners
from memories.frames.signing import Keyring
from memories.model.entry import Entry, ExpiringEntry, Form, Record, TierName, Version

if TYPE_CHECKING:
    from memories.backends.bucket import BucketBackend

WHOLE_BYTES = 512 * 1024  # Up to here one request for all of it is as fast as two for a part.


class Medium(ABC):
    """Keeps payloads in one form."""

    form: Form

    def suits(self, parcel: Parcel) -> bool:
        """Return whether this is a place for the value when nobody asked for it by name."""
        del parcel
        return True

    @abstractmethod
    def convert(self, parcel: Parcel, version: Version) -> Parcel:
        """Return `parcel` in the home form; its `size` is what keeping it will take."""

    @abstractmethod
    def keep(
        self,
        parcel: Parcel,
        version: Version,
        *,
        hits: int,
        backed: TierName | None,
        archived: bytes,
    ) -> Any:
        """Keep a converted parcel and return its entry or record.

        The caller has reserved the parcel's size; on success the reservation is used up.
        """

    @abstractmethod
    def take(self, found: Any) -> Parcel:
        """Return what an entry or a record stands for, without a copy where the form allows."""

    def take_part(self, found: Any) -> Parcel:
        """Return what an entry or a record stands for, to read regions of it only."""
        return self.take(found)

    def take_many(self, found: Sequence[Any]) -> list[Parcel]:
        """Return what many entries or records stand for, in their order."""
        return [self.take(one) for one in found]

    def restore(self, found: Sequence[Any], timeout: float) -> None:
        """Make what cannot be read at once readable, within `timeout` seconds."""
        del found, timeout

    @property
    def remote(self) -> bool:
        """Return whether it is worth taking many at once."""
        return False

    @abstractmethod
    def let_go(self, found: Any) -> None:
        """Give up what an entry or a record stood for, which nothing names any more."""


class HostMedium(Medium):
    """RAM: the entry itself holds the payload, and its bytes stay charged until views of it die."""

    form = Form.HOST

    def __init__(
        self,
        tier: TierName,
        *,
        ledger: Ledger,
        counter: HitCounter,
        tick: Callable[[str, int, Callable[[], int]], Callable[[], int]],
        trust: Keyring,
        over: Callable[[Entry], bool],
    ) -> None:
        self._tier = tier
        self._ledger = ledger
        self._counter = counter
        self._tick = tick
        self._trust = trust
        self._over = over

    def convert(self, parcel: Parcel, version: Version) -> Parcel:
        """Return live objects in memory of their own."""
        del version
        return parcel.hosted(self._trust)

    def keep(
        self,
        parcel: Parcel,
        version: Version,
        *,
        hits: int,
        backed: TierName | None,
        archived: bytes,
    ) -> Entry:
        """Return a new entry around the payload."""
        del archived
        tick = self._tick(version.key, parcel.size, self._counter.tick)

        def make(kind: type[Entry]) -> Entry:
            return kind(
                key=version.key,
                version=version.number,
                tier=self._tier,
                payload=parcel.payload,
                size=parcel.size,
                stored_at=version.stored_at,
                terms=version.terms,
                tick=tick,
                stamp=self._counter.stamp(),
                hits=hits,
                backed=backed,
            )

        entry = make(parcel.entry_type())
        if version.terms.expires_at is None:
            return entry
        expiring = make(ExpiringEntry)
        assert isinstance(expiring, ExpiringEntry)
        expiring.inner = entry
        expiring.over = self._over
        return expiring

    def take(self, found: Entry) -> Parcel:
        """Return the entry's own payload."""
        return Parcel.of_entry(found)

    def let_go(self, found: Entry) -> None:
        """Uncharge the payload when the last view of it dies."""
        self._ledger.release_with(owners(found.payload), found.size)


class FrameMedium(Medium):
    """A disk or a bucket: frames behind a backend."""

    form = Form.ENCODED

    def __init__(
        self,
        tier: TierName,
        *,
        backend: Backend,
        ledger: BackendLedger,
        compression: str,
        trust: Keyring,
    ) -> None:
        self._tier = tier
        self._ledger = ledger
        self._backend = backend
        self.compression = compression
        self._trust = trust

    @property
    def backend(self) -> Backend:
        """Return what keeps the frames."""
        return self._backend

    def convert(self, parcel: Parcel, version: Version) -> Parcel:
        """Return a frame bound to `version`; frames stay as they are, byte for byte."""
        return parcel.framed(
            key=version.key,
            version=version.number,
            compression=self.compression,
            trust=self._trust,
        )

    def keep(
        self,
        parcel: Parcel,
        version: Version,
        *,
        hits: int,
        backed: TierName | None,
        archived: bytes,
    ) -> Record:
        """Write the frame and return its record."""
        del hits, backed
        record = Record(
            key=version.key,
            version=version.number,
            tier=self._tier,
            size=parcel.host_size,
            stored_at=version.stored_at,
            kind=parcel.codec,
            terms=version.terms,
            archived=archived,
        )
        kept = self._write(record, parcel.payload.segments)
        self._ledger.release(parcel.size)
        return kept

    def _write(self, record: Record, frame: Sequence[memoryview]) -> Record:
        return self._backend.write(record, frame)

    def take(self, found: Record) -> Parcel:
        """Return the frame that the record names, unverified as yet."""
        return Parcel.of_frame(self._backend.read(found), key=found.key)

    def take_part(self, found: Record) -> Parcel:
        """Return the frame, of which only what is asked for travels if it is large and far away."""
        if not self.remote or found.stored <= WHOLE_BYTES:
            return self.take(found)
        fetch = partial(self._backend.read_ranges, found)
        return Parcel.of_parts(fetch, found.stored, key=found.key)

    def take_many(self, found: Sequence[Record]) -> list[Parcel]:
        """Return the frames, asked for together."""
        frames = self._backend.read_many(found)
        return [
            Parcel.of_frame(frame, key=record.key)
            for record, frame in zip(found, frames, strict=True)
        ]

    def restore(self, found: Sequence[Record], timeout: float) -> None:
        """Have the backend bring frames back from an archive class."""
        self._backend.restore(found, timeout=timeout)

    @property
    def remote(self) -> bool:
        """Return whether the backend is far away."""
        return self._backend.remote

    def let_go(self, found: Record) -> None:
        """Make the key absent here as of the record's version."""
        self._backend.remove(found.key, found.version)


class ArchiveMedium(FrameMedium):
    """An archive: what sinks there is compressed anew, for it is paid by the byte.

    What it keeps is only prepared there: it counts once it is journaled (see `engine/archive.py`).
    `on_code` is told the first key whose value is a pickle, which few can read.
    """

    def __init__(self, tier: TierName, *, on_code: Callable[[str], None], **works: Any) -> None:
        super().__init__(tier, **works)
        self._on_code: Callable[[str], None] | None = on_code

    def convert(self, parcel: Parcel, version: Version) -> Parcel:
        """Return a frame bound to `version`, compressed anew where that saves enough."""
        if parcel.form is Form.ENCODED:
            return parcel.archived(self.compression)
        return super().convert(parcel, version)

    def keep(
        self,
        parcel: Parcel,
        version: Version,
        *,
        hits: int,
        backed: TierName | None,
        archived: bytes,
    ) -> Record:
        """Write the frame and return its record."""
        if carries_code(parcel.codec) and self._on_code is not None:
            told, self._on_code = self._on_code, None
            told(version.key)
        return super().keep(parcel, version, hits=hits, backed=backed, archived=archived)

    def _write(self, record: Record, frame: Sequence[memoryview]) -> Record:
        return cast("BucketBackend", self._backend).prepare(record, frame)
