"""How a tier keeps a payload: as an entry in RAM, or as a frame behind a backend.

Not a policy and not a map. A medium turns a payload into its home form, keeps it, gives it back and
lets it go; those four verbs are all in which tiers differ.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from memories.backends.base import Backend
from memories.codecs.base import carries_code
from memories.engine.budget import BackendBudget, Budget
from memories.engine.hit_clock import HitCounter
from memories.engine.payload import Payload, owners
from memories.frames.signing import Keyring
from memories.model.entry import Entry, ExpiringEntry
from memories.model.record import Record, Version
from memories.model.tiers import Form, TierName

if TYPE_CHECKING:
    from memories.backends.bucket import BucketBackend

WHOLE_BYTES = 512 * 1024  # Up to here one request for all of it is as fast as two for a part.


class TierStorage(ABC):
    """Keeps payloads in one form."""

    form: Form

    def suits(self, payload: Payload) -> bool:
        """Return whether this is a place for the value when nobody asked for it by name."""
        del payload
        return True

    @abstractmethod
    def convert(self, payload: Payload, version: Version) -> Payload:
        """Return `payload` in the home form; its `size` is what keeping it will take."""

    @abstractmethod
    def keep(
        self,
        payload: Payload,
        version: Version,
        *,
        hits: int,
        backed: TierName | None,
        archived: bytes,
    ) -> Any:
        """Keep a converted payload and return its entry or record.

        The caller has reserved the payload's size; on success the reservation is used up.
        """

    @abstractmethod
    def take(self, found: Any) -> Payload:
        """Return what an entry or a record stands for, without a copy where the form allows."""

    def take_part(self, found: Any) -> Payload:
        """Return what an entry or a record stands for, to read regions of it only."""
        return self.take(found)

    def take_many(self, found: Sequence[Any]) -> list[Payload]:
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


class HostStorage(TierStorage):
    """RAM: the entry itself holds the payload, and its bytes stay charged until views of it die."""

    form = Form.HOST

    def __init__(
        self,
        tier: TierName,
        *,
        budget: Budget,
        counter: HitCounter,
        tick: Callable[[str, int, Callable[[], int]], Callable[[], int]],
        trust: Keyring,
        over: Callable[[Entry], bool],
    ) -> None:
        self._tier = tier
        self._budget = budget
        self._counter = counter
        self._tick = tick
        self._trust = trust
        self._over = over

    def convert(self, payload: Payload, version: Version) -> Payload:
        """Return live objects in memory of their own."""
        del version
        return payload.hosted(self._trust)

    def keep(
        self,
        payload: Payload,
        version: Version,
        *,
        hits: int,
        backed: TierName | None,
        archived: bytes,
    ) -> Entry:
        """Return a new entry around the payload."""
        del archived
        tick = self._tick(version.key, payload.size, self._counter.tick)

        def make(kind: type[Entry]) -> Entry:
            return kind(
                key=version.key,
                version=version.number,
                tier=self._tier,
                payload=payload.content,
                size=payload.size,
                stored_at=version.stored_at,
                terms=version.terms,
                tick=tick,
                stamp=self._counter.stamp(),
                hits=hits,
                backed=backed,
            )

        entry = make(payload.entry_type())
        if version.terms.expires_at is None:
            return entry
        expiring = make(ExpiringEntry)
        assert isinstance(expiring, ExpiringEntry)
        expiring.inner = entry
        expiring.over = self._over
        return expiring

    def take(self, found: Entry) -> Payload:
        """Return the entry's own payload."""
        return Payload.of_entry(found)

    def let_go(self, found: Entry) -> None:
        """Uncharge the payload when the last view of it dies."""
        self._budget.release_with(owners(found.payload), found.size)


class FrameStorage(TierStorage):
    """A disk or a bucket: frames behind a backend."""

    form = Form.ENCODED

    def __init__(
        self,
        tier: TierName,
        *,
        backend: Backend,
        budget: BackendBudget,
        compression: str,
        trust: Keyring,
    ) -> None:
        self._tier = tier
        self._budget = budget
        self._backend = backend
        self.compression = compression
        self._trust = trust

    @property
    def backend(self) -> Backend:
        """Return what keeps the frames."""
        return self._backend

    def convert(self, payload: Payload, version: Version) -> Payload:
        """Return a frame bound to `version`; frames stay as they are, byte for byte."""
        return payload.framed(
            key=version.key,
            version=version.number,
            compression=self.compression,
            trust=self._trust,
        )

    def keep(
        self,
        payload: Payload,
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
            size=payload.host_size,
            stored_at=version.stored_at,
            kind=payload.codec,
            terms=version.terms,
            archived=archived,
        )
        kept = self._write(record, payload.content.segments)
        self._budget.release(payload.size)
        return kept

    def _write(self, record: Record, frame: Sequence[memoryview]) -> Record:
        return self._backend.write(record, frame)

    def take(self, found: Record) -> Payload:
        """Return the frame that the record names, unverified as yet."""
        return Payload.of_frame(self._backend.read(found), key=found.key)

    def take_part(self, found: Record) -> Payload:
        """Return the frame, of which only what is asked for travels if it is large and far away."""
        if not self.remote or found.stored <= WHOLE_BYTES:
            return self.take(found)
        fetch = partial(self._backend.read_ranges, found)
        return Payload.of_parts(fetch, found.stored, key=found.key)

    def take_many(self, found: Sequence[Record]) -> list[Payload]:
        """Return the frames, asked for together."""
        frames = self._backend.read_many(found)
        return [
            Payload.of_frame(frame, key=record.key)
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


class ArchiveStorage(FrameStorage):
    """An archive: what sinks there is compressed anew, for it is paid by the byte.

    What it keeps is only prepared there: it counts once it is journaled (see `engine/archive.py`).
    `on_code` is told the first key whose value is a pickle, which few can read.
    """

    def __init__(self, tier: TierName, *, on_code: Callable[[str], None], **works: Any) -> None:
        super().__init__(tier, **works)
        self._on_code: Callable[[str], None] | None = on_code

    def convert(self, payload: Payload, version: Version) -> Payload:
        """Return a frame bound to `version`, compressed anew where that saves enough."""
        if payload.form is Form.ENCODED:
            return payload.archived(self.compression)
        return super().convert(payload, version)

    def keep(
        self,
        payload: Payload,
        version: Version,
        *,
        hits: int,
        backed: TierName | None,
        archived: bytes,
    ) -> Record:
        """Write the frame and return its record."""
        if carries_code(payload.codec) and self._on_code is not None:
            told, self._on_code = self._on_code, None
            told(version.key)
        return super().keep(payload, version, hits=hits, backed=backed, archived=archived)

    def _write(self, record: Record, frame: Sequence[memoryview]) -> Record:
        return cast("BucketBackend", self._backend).prepare(record, frame)
