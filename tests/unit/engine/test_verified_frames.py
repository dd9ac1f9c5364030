"""A large frame is verified in full once; a small one at every read."""

from __future__ import annotations

from memories.backends.base import LARGE_BYTES
from memories.engine.verified_frames import VerifiedFrames
from memories.model.events import Removed
from memories.model.record import Record
from memories.model.tiers import Cause, TierName


def record(*, version: int = 1, stored: int = LARGE_BYTES, place: bytes = b"here") -> Record:
    """Return the record of a value in cold."""
    return Record(
        key="k", version=version, tier=TierName.COLD, size=1, stored=stored, stored_at=0.0,
        place=place,
    )  # fmt: skip


def test_only_this_version_at_this_place_counts_as_verified() -> None:
    """Other bytes under the same key were never read."""
    verified = VerifiedFrames()
    verified.add(record())
    assert verified.knows(record())
    assert not verified.knows(record(version=2))
    assert not verified.knows(record(place=b"there"))


def test_small_frames_are_not_remembered() -> None:
    """To remember them would cost RAM for each key at rest."""
    verified = VerifiedFrames()
    verified.add(record(stored=LARGE_BYTES - 1))
    assert not verified.knows(record(stored=LARGE_BYTES - 1))


def test_a_removed_key_is_forgotten() -> None:
    """Nothing may remain of it."""
    verified = VerifiedFrames()
    verified.add(record())
    verified.observe(Removed("k", 0.0, TierName.COLD, 1, Cause.REMOVED))
    assert not verified.knows(record())


def test_chunks_are_remembered_one_by_one() -> None:
    """Of one version at one place; all of them once the whole frame was verified."""
    verified = VerifiedFrames()
    chunks = verified.chunks_of(record())
    assert chunks is not None
    chunks.add([3, 700])
    again = verified.chunks_of(record())
    assert again is not None
    assert [3, 700] == [chunk for chunk in range(1024) if again.has(chunk)]
    moved = verified.chunks_of(record(place=b"there"))
    assert moved is not None
    assert not moved.has(3)
    verified.add(record(place=b"there"))
    whole = verified.chunks_of(record(place=b"there"))
    assert whole is not None
    assert all(map(whole.has, range(1024)))
    verified.observe(Removed("k", 0.0, TierName.COLD, 1, Cause.REMOVED))
    forgotten = verified.chunks_of(record(place=b"there"))
    assert forgotten is not None
    assert not forgotten.has(3)
    assert verified.chunks_of(record(stored=LARGE_BYTES - 1)) is None
