"""An index whose sums all hold and that says something else: damage, never a hang or another error.

The sums find accidents. An attacker computes them anew, and then the checks of the content count.
"""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from xxhash import xxh3_64_intdigest

from memories.backends.disk.backend import DiskBackend
from memories.backends.disk.files import Files
from memories.backends.disk.log_format import (
    FILE,
    INLINE,
    PLACE,
    Position,
    encode_record,
    pack_head,
    pack_inline,
    unpack_head,
)
from memories.backends.disk.manifest import load, version_of
from memories.backends.disk.paths import StorePaths
from memories.backends.disk.reader import GoneError
from memories.backends.disk.run import BLOCK, FOOTER, MAGIC, Run
from memories.backends.disk.run_table import RunDamagedError
from memories.errors import MemoriesError, StorageError
from memories.model.record import Record
from memories.model.tiers import TierName

KEYS = [f"key{number:03d}" for number in range(120)]
SECONDS = 30.0


def record(key: str, version: int) -> Record:
    """Return the record of a small value."""
    return Record(key=key, version=version, tier=TierName.COLD, size=10, stored_at=1.0)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Return a store with a checkpoint and one run."""
    path = tmp_path / "store"
    with DiskBackend(path) as backend:
        for version, key in enumerate(KEYS, 1):
            backend.write(record(key, version), [memoryview(key.encode() * 30)])
    return path


def seal(data: bytearray) -> None:
    """Compute all sums of a run anew, as far as its footer leads to them."""
    footer_at = len(data) - FOOTER.size
    sums_at = struct.unpack_from("<Q", data, footer_at + 56)[0]
    if 0 < sums_at <= footer_at:
        for block in range(min(-(-sums_at // BLOCK), (footer_at - sums_at) // 8)):
            start = block * BLOCK
            digest = xxh3_64_intdigest(bytes(data[start : min(start + BLOCK, sums_at)]), block)
            struct.pack_into("<Q", data, sums_at + 8 * block, digest)
    whole = bytes(data[max(0, min(sums_at, footer_at)) : len(data) - 8])
    struct.pack_into("<Q", data, len(data) - 8, xxh3_64_intdigest(whole))


def use(path: Path) -> None:
    """Read everything that a run has, in every way there is."""
    run = Run(path, Files(), mmap=False)
    for read in (
        lambda: [run.row(key) for key in [*KEYS, "absent", ""]],
        lambda: list(run.rows()),
        lambda: list(run.rows("key05", "key051")),
        lambda: list(run.raw()),
        lambda: list(run.expired(1e12)),
        lambda: run.ends(0),
        run.verify,
    ):
        try:
            read()
        except RunDamagedError:
            continue


def test_a_forged_run_is_damage_and_ends(store: Path, tmp_path: Path) -> None:
    """Each look-up ends, whatever the rows, the offsets and the table say."""
    (found,) = (store / "index").glob("*.run")
    sound, rng, forged = found.read_bytes(), random.Random(20261130), tmp_path / "forged.run"
    started = time.monotonic()
    for _ in range(1500):
        data = bytearray(sound)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(64, len(data) - 8)
            if rng.random() < 0.5:
                data[at] = rng.randrange(256)
            else:
                number = rng.choice([0, 1, 2**32 - 1, 2**44 - 1, 2**63, rng.randrange(len(data))])
                struct.pack_into("<Q", data, min(at // 8 * 8, len(data) - 16), number)
        seal(data)
        forged.write_bytes(data)
        try:
            use(forged)
        except RunDamagedError:
            continue
    assert time.monotonic() - started < 4 * SECONDS


def test_a_full_table_has_an_end(store: Path, tmp_path: Path) -> None:
    """A table without an empty slot: the look-up of an absent key went round for ever."""
    (found,) = (store / "index").glob("*.run")
    data = bytearray(found.read_bytes())
    footer_at = len(data) - FOOTER.size
    magic, _, _, slots, _, table_at, *_ = FOOTER.unpack_from(data, footer_at)
    assert MAGIC == magic
    for slot in range(slots):
        struct.pack_into("<Q", data, table_at + 8 * slot, 2**64 - 1)
    seal(data)
    forged = tmp_path / "forged.run"
    forged.write_bytes(data)
    run = Run(forged, Files(), mmap=False)
    with pytest.raises(RunDamagedError):
        run.row("absent")


FORGERIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "more live than there is": lambda fields: fields.update(live=2**60),
    "negative": lambda fields: fields.update(live=-1),
    "a version beyond all": lambda fields: fields.update(last_version=2**63),
    "dead bytes of nothing": lambda fields: fields.update(retired=[[1, 2**50]]),
    "one run many times": lambda fields: fields.update(runs=fields["runs"] * 1000),
    "a segment more live than long": lambda fields: fields["segments"][1].__setitem__(1, 2**50),
    "more elsewhere than there are": lambda fields: fields.update(elsewhere=2**40),
    "a text for a number": lambda fields: fields.update(keys="many"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_manifest_is_not_used(store: Path, name: str) -> None:
    """The log is read instead: all values are there, and one more can be stored."""
    path = store / "index" / "manifest"
    fields = msgspec.msgpack.decode(path.read_bytes()[16:], strict=False)
    FORGERIES[name](fields)
    body = msgspec.msgpack.encode(fields)
    forged = path.read_bytes()[:8] + xxh3_64_intdigest(body).to_bytes(8, "little") + body
    assert load(forged) is None
    path.write_bytes(forged)
    with DiskBackend(store, capacity_bytes=10**9) as backend:
        assert len(KEYS) == len(list(backend.scan()))
        backend.write(record("more", 10**6), [memoryview(b"more")])
        assert len(KEYS) * 10 * 3 < backend.usage().live < 10**6


@pytest.mark.parametrize(
    "what", [{"version": 2**63}, {"size": -1}, {"stored_at": float("nan")}, {"stored_at": 1e300}]
)
def test_a_record_with_impossible_numbers_is_not_sound(tmp_path: Path, what: Any) -> None:
    """Counts, budgets and calendars are computed with them."""
    path = tmp_path / "store"
    with DiskBackend(path) as backend:
        backend.write(record("before", 1), [memoryview(b"before")])
        wild = msgspec.structs.replace(record("wild", 2), **what)
        backend.write(wild, [memoryview(b"wild")])
    for file in (path / "index").iterdir():
        file.unlink()
    try:
        with DiskBackend(path) as backend:
            assert ["before"] == [found.key for found in backend.scan()]
    except MemoriesError as error:
        assert "damaged" in str(error)


def test_forged_heads_behind_damage_take_no_quadratic_time(store: Path) -> None:
    """Every 64 bytes a sound head that claims a frame up to the end of the segment."""
    nbytes = 6 << 20
    for file in (store / "index").iterdir():
        file.unlink()
    (segment,) = (store / "log").glob("*.seg")
    data = bytearray(segment.read_bytes())
    forged = bytearray(nbytes)
    body = encode_record(["k", 1, "cold", 1, 1, 1])
    for at in range(64, nbytes, 64):
        head, frame_at = pack_inline(body, b"", (nbytes - at - 64) // 64 * 64, 0, Position(9, 0))
        assert 64 == frame_at
        forged[at : at + 64] = head[:64]
    segment.write_bytes(data + forged)
    started = time.monotonic()
    for repair in (False, True):
        try:
            with DiskBackend(store, repair=repair) as backend:
                assert len(KEYS) <= len(list(backend.scan()))
        except MemoriesError as error:
            assert not repair, error
    assert time.monotonic() - started < SECONDS


@pytest.mark.parametrize(
    "place",
    [b"", PLACE.pack(9, 1, 0, 5), PLACE.pack(INLINE, 1, 1 << 62, 5), PLACE.pack(FILE, 7, 0, 5)],
)
def test_a_forged_place_leads_nowhere(store: Path, place: bytes) -> None:
    """No place, a kind that is none, one beyond every file, and a file that is not there."""
    with DiskBackend(store) as backend:
        forged = msgspec.structs.replace(record("key000", 1), place=place, stored=5)
        with pytest.raises(GoneError):
            backend._reader.read(forged)


@pytest.mark.parametrize(("kind", "body"), [(9, encode_record(record("key", 1))), (FILE, b"\xc1")])
def test_a_head_whose_sum_holds_may_still_be_none(kind: int, body: bytes) -> None:
    """Of a kind that is none, or with a record that is none."""
    head = pack_head(kind, body, oldest=1, synced=Position(1, 64))
    assert unpack_head(head) is None


def test_the_version_of_a_manifest_that_cannot_be_read(store: Path) -> None:
    """Without one the store is of no version; what is no file is named."""
    paths = StorePaths(store)
    assert 0 < version_of(paths)
    paths.manifest.unlink()
    assert 0 == version_of(paths)
    paths.manifest.mkdir()
    with pytest.raises(StorageError, match="manifest cannot be read"):
        version_of(paths)
