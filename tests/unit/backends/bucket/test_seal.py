"""An encrypted archive: nothing in it is read or exchanged, and its key is never lost."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.buckets.kit import WatchedStore, frame, record

from memories.backends.bucket import BucketBackend, BucketLimits, data_key, sealed_reader
from memories.backends.bucket.directory import DirectoryStore
from memories.backends.bucket.location import ObjectLocation, new_token, object_name
from memories.backends.bucket.open_store import open_store
from memories.backends.bucket.pack import PackContents, PackEntry, PackIndex, finish
from memories.errors import (
    CorruptDataError,
    EncryptionKeyError,
    MemoriesError,
    RefusedError,
    StorageError,
    UnavailableError,
)
from memories.sealing.master_key import EncryptionKey, append_version, create_file

MARKER = b"planted-marker"
NAME = MARKER.decode()
LIMITS = BucketLimits(pack_bytes=50_000, flush_seconds=10_000)


@pytest.fixture
def key(tmp_path: Path) -> EncryptionKey:
    create_file(tmp_path / "key", "prod")
    return EncryptionKey.from_file(tmp_path / "key")


def opened(root: Path, key: EncryptionKey | None, home: str = "home", **options) -> BucketBackend:  # type: ignore[no-untyped-def]
    url = options.pop("url", root / "bucket")
    return BucketBackend(url, directory=root / home, limits=LIMITS, encryption=key, **options)


def content(number: int) -> bytes:
    """Return a frame: small ones, one of a few chunks, and a large one."""
    size = {8: 300_000, 9: 2 << 20}.get(number, 30 + number)
    return MARKER + random.Random(number).randbytes(size)


def filled(root: Path, key: EncryptionKey) -> dict[str, bytes]:
    """Make an archive with ten values, a removal, an overwritten value, a manifest and a pin."""
    values = {f"{NAME}-{number}": content(number) for number in range(10)}
    with closing(opened(root, key)) as backend:
        backend.write(record(f"{NAME}-3", 1), frame(b"older" + MARKER))
        for version, (name, data) in enumerate(values.items(), start=2):
            kept = backend.write(record(name, version), frame(data))
        backend.write(record(f"{NAME}-gone", 50), frame(MARKER))
        backend.sync()
        backend.remove(f"{NAME}-gone", 51)
        backend.sync()
        backend.protect(kept.place, holder=f"snapshot of {NAME}")
        backend._maintenance.write_manifests()
    return values


def everything(root: Path, key: EncryptionKey | None) -> dict[str, bytes]:
    with closing(BucketBackend(root / "bucket", read_only=True, encryption=key)) as reader:
        return {one.key: bytes(reader.read(one)) for one in reader.scan()}


def files_of(path: Path) -> dict[str, bytes]:
    return {str(one): one.read_bytes() for one in sorted(path.rglob("*")) if one.is_file()}


def test_no_object_and_no_file_shows_a_value_or_a_name(tmp_path: Path, key: EncryptionKey) -> None:
    """Neither in the bucket nor in the map, with what is staged, prepared, damaged or protected."""
    values = filled(tmp_path, key)
    with closing(opened(tmp_path, key)) as backend:
        backend.write(record(f"{NAME}-late", 60), frame(MARKER * 9))
        backend.prepare(record(f"{NAME}-prepared", 61), frame(MARKER * 9))
        backend.prepare_removal(f"{NAME}-3", 62)
        assert {f"snapshot of {NAME}": 1} == backend.holders()
        for path, data in (files_of(tmp_path / "bucket") | files_of(tmp_path / "home")).items():
            assert MARKER not in data, path
            assert NAME not in path
        assert {(f"{NAME}-prepared", "value"), (f"{NAME}-3", "removal")} == {
            (one.key, one.what) for one in backend.prepared()
        }
    assert values | {f"{NAME}-late": MARKER * 9} == everything(tmp_path, key)


def test_keys_are_listed_in_order(tmp_path: Path, key: EncryptionKey) -> None:
    """As those of any backend, although the map cannot sort them."""
    with closing(opened(tmp_path, key)) as backend:
        names = ["b", "a/1", "a/2", "é", "a", "a/10"]
        for version, name in enumerate(names, start=1):
            backend.write(record(name, version), frame(b"x"))
        order = sorted(names, key=str.encode)
        assert order == [one.key for one in backend.scan()]
        assert ["a/1", "a/10", "a/2"] == [one.key for one in backend.scan("a/")]
        assert ["a/2", "b", "é"] == [one.key for one in backend.scan(after="a/10")]


Spoil = Callable[[Path], EncryptionKey | None]


def no_key(root: Path) -> None:
    return None


def another_key(root: Path) -> EncryptionKey:
    create_file(root / "other", "other")
    return EncryptionKey.from_file(root / "other")


def another_secret(root: Path) -> EncryptionKey:
    create_file(root / "same", "prod")
    return EncryptionKey.from_file(root / "same")


@pytest.mark.parametrize("spoil", [no_key, another_key, another_secret])
@pytest.mark.parametrize("read_only", [True, False])
def test_without_the_key_it_is_refused_and_stays_as_it_is(
    tmp_path: Path, key: EncryptionKey, spoil: Spoil, read_only: bool
) -> None:
    """By one error, before the lease is asked for."""
    values = filled(tmp_path, key)
    before = files_of(tmp_path / "bucket")
    with pytest.raises(EncryptionKeyError):
        opened(tmp_path, spoil(tmp_path), home="other home", read_only=read_only)
    assert before == files_of(tmp_path / "bucket")
    assert values == everything(tmp_path, key)


def test_an_archive_that_is_not_encrypted_is_refused(tmp_path: Path, key: EncryptionKey) -> None:
    """What lies there would stay as it is."""
    with closing(opened(tmp_path, None)) as backend:
        backend.write(record("k", 1), frame(MARKER))
    before = files_of(tmp_path / "bucket")
    for home in ("home", "other"):
        with pytest.raises(EncryptionKeyError, match="is not encrypted"):
            opened(tmp_path, key, home=home)
    assert before == files_of(tmp_path / "bucket")
    assert {"k": MARKER} == everything(tmp_path, None)


def test_every_altered_byte_is_an_error_or_does_no_harm(tmp_path: Path, key: EncryptionKey) -> None:
    """A value comes back as it was stored, or as an error that names its key or its object."""
    values, chance = filled(tmp_path, key), random.Random(4)
    objects = [one for one in files_of(tmp_path / "bucket") if "/lock/" not in one]
    for path in objects:
        data = Path(path).read_bytes()
        for at in {0, len(data) - 1, *(chance.randrange(len(data)) for _ in range(4))}:
            Path(path).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            found: dict[str, bytes | None] = {}
            try:
                with closing(
                    BucketBackend(tmp_path / "bucket", read_only=True, encryption=key)
                ) as reader:
                    for one in reader.scan():
                        found[one.key] = None
                        found[one.key] = bytes(reader.read(one))
            except MemoriesError:
                pass
            assert all(data in (None, values[name]) for name, data in found.items()), (path, at)
        Path(path).write_bytes(data)
    assert values == everything(tmp_path, key)


def test_an_older_frame_of_the_same_key_is_refused(tmp_path: Path, key: EncryptionKey) -> None:
    """It is bound to what its record knows of it, and not only to its key."""
    store = DirectoryStore(tmp_path / "bucket/memories-1")
    with closing(opened(tmp_path, key)) as backend:
        old = backend.write(record("k", 1), frame(b"1" * 300_000))
        new = backend.write(record("k", 2), frame(b"2" * 300_000))
        other = backend.write(record("other", 3), frame(b"3" * 300_000))
        for source in (old, other):
            taken = ObjectLocation.decode(source.place)
            place = ObjectLocation.decode(new.place)
            whole = store.get(place.name)[0]
            forged = store.get(taken.name)[0][: taken.length] + whole[taken.length :]
            store.put(place.name, [forged])
            with pytest.raises(CorruptDataError, match=r"frame of 'k' is damaged"):
                backend.read(new)
            with pytest.raises(CorruptDataError, match=r"frame of 'k' is damaged"):
                backend.read_ranges(new, [(5, 9)])
            store.put(place.name, [whole])
            assert b"2" * 300_000 == backend.read(new)


def test_a_planted_index_without_encryption_is_refused(tmp_path: Path, key: EncryptionKey) -> None:
    """Else an adversary who can write could add keys, and remove them."""
    values = filled(tmp_path, key)
    store = DirectoryStore(tmp_path / "bucket/memories-1")
    contents = PackContents([PackEntry(0, 64, record("evil", 9999))], [(f"{NAME}-1", 9999)])
    end = finish(PackIndex("s", 1, 99, 0.0, contents), 64)
    store.put(object_name(new_token()), [bytes(64), end])
    with closing(BucketBackend(tmp_path / "bucket", read_only=True, encryption=key)) as reader:
        (damage,) = reader.damage
        assert "is not encrypted, unlike the archive" in damage.what
        assert set(values) == {one.key for one in reader.scan()}


def test_an_index_is_for_one_object(tmp_path: Path, key: EncryptionKey) -> None:
    """A copy of an object under another name is damage."""
    values = filled(tmp_path, key)
    store = DirectoryStore(tmp_path / "bucket/memories-1")
    name = next(stat.name for stat in store.list("objects/"))
    store.put(object_name(new_token()), [store.get(name)[0]])
    with closing(BucketBackend(tmp_path / "bucket", read_only=True, encryption=key)) as reader:
        assert 1 == len(reader.damage)
    assert values == everything(tmp_path, key)


def test_a_region_transfers_only_the_chunks_it_touches(tmp_path: Path, key: EncryptionKey) -> None:
    """The head of the frame is in the record, so that it costs no request."""
    store = WatchedStore(DirectoryStore(tmp_path / "bucket"))
    data = os.urandom(20_000_000)
    with closing(opened(tmp_path, key, url=store)) as backend:
        kept = backend.write(record("k", 1), frame(data))
        assert len(data) == backend.ranged_length(kept)
        before = store.count["get_range"], store.bytes["get_range"]
        spans = [(10_000_000, 10_000_010), (19_999_990, 20_000_000), (5, 5)]
        assert [data[a:b] for a, b in spans] == backend.read_ranges(kept, spans)
        assert 3 == store.count["get_range"] - before[0]
        assert store.bytes["get_range"] - before[1] <= 3 * ((1 << 17) + 16)
        with pytest.raises(CorruptDataError):
            backend.read_ranges(kept, [(0, len(data) + 1)])


def test_a_large_frame_is_decrypted_piece_by_piece(
    tmp_path: Path, key: EncryptionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not in RAM twice."""
    monkeypatch.setattr(sealed_reader, "_PIECE_BYTES", 3 << 20)
    data = os.urandom(10_000_001)
    with closing(opened(tmp_path, key)) as backend:
        assert data == backend.read(backend.write(record("k", 1), frame(data)))


ROTATE = """
import sys
from memories.backends.bucket import data_key
from memories.backends.bucket.open_store import open_store
from memories.sealing.master_key import EncryptionKey, append_version
from pathlib import Path
key, store = EncryptionKey.from_file(sys.argv[2]), open_store(sys.argv[1])
while True:
    append_version(Path(sys.argv[2]))
    data_key.rotate(store, key)
    print(flush=True)
"""


def test_a_rotation_that_is_killed_loses_nothing(tmp_path: Path, key: EncryptionKey) -> None:
    """At every moment the data key is wrapped by a version that the file of the key holds."""
    values = filled(tmp_path, key)
    for number in range(3):
        arguments = [str(tmp_path / "bucket"), str(tmp_path / "key")]
        child = subprocess.Popen(
            [sys.executable, "-c", ROTATE, *arguments], stdout=subprocess.PIPE, bufsize=0
        )
        assert child.stdout is not None
        for _ in range(1 + number):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert values == everything(tmp_path, key)
    done = data_key.rotate(open_store(tmp_path / "bucket"), key)
    assert ("prod", 1) == (done.name, done.keys)
    assert 0 == data_key.rotate(open_store(tmp_path / "bucket"), key).rewrapped
    lines = (tmp_path / "key").read_text().split()
    (tmp_path / "key").write_text(lines[-1])  # No older version is needed any more.
    assert values == everything(tmp_path, key)
    with closing(opened(tmp_path, key)) as backend:
        assert values == {one.key: bytes(backend.read(one)) for one in backend.scan()}


def test_a_rotation_in_an_open_archive(tmp_path: Path, key: EncryptionKey) -> None:
    """Nothing is written again, and what is remembered here is wrapped anew, too."""
    values = filled(tmp_path, key)
    objects = files_of(tmp_path / "bucket/memories-1/objects")
    with closing(opened(tmp_path, key)) as backend:
        append_version(tmp_path / "key")
        assert ("prod", 2, 1, 1) == backend.rotate_key(key)
    assert objects == files_of(tmp_path / "bucket/memories-1/objects")
    (tmp_path / "key").write_text((tmp_path / "key").read_text().split()[-1])
    with closing(opened(tmp_path, key)) as backend:
        assert values == {one.key: bytes(backend.read(one)) for one in backend.scan()}
    with pytest.raises(StorageError, match="holds no encrypted archive"):
        data_key.rotate(open_store(tmp_path / "nothing"), key)


class Away(WatchedStore):
    """A bucket that can be reached, or not."""

    reached = True

    def _note(self, action: str, name: str, size: int = 0) -> None:
        if not self.reached:
            raise UnavailableError("the bucket is away")
        super()._note(action, name, size)


def test_what_is_staged_can_be_read_while_the_bucket_is_away(
    tmp_path: Path, key: EncryptionKey
) -> None:
    """The map remembers the data key; but who never saw the bucket archives nothing."""
    store = Away(DirectoryStore(tmp_path / "bucket"))
    backend = opened(tmp_path, key, url=store)
    kept = backend.write(record("k", 1), frame(MARKER))
    store.reached = False
    with pytest.raises(UnavailableError):
        backend.close()
    again = opened(tmp_path, key, url=store, away_seconds=5)
    assert MARKER == again.read(kept)
    assert again.known
    later = again.write(record("later", 2), frame(MARKER * 2))
    assert MARKER * 2 == again.read(later)
    with pytest.raises(UnavailableError):
        again.close()
    fresh = opened(tmp_path, key, home="fresh", url=store, away_seconds=5)
    assert not fresh.known
    assert fresh.lookup("k") is None
    with pytest.raises(UnavailableError):
        fresh.write(record("k", 1), frame(MARKER))
    for path, data in files_of(tmp_path / "home").items():
        assert MARKER not in data, path
    fresh.close()
    store.reached = True
    with closing(opened(tmp_path, key, url=store)) as back:
        back.sync()
    with closing(BucketBackend(store, read_only=True, encryption=key)) as reader:
        assert {"k", "later"} == {one.key for one in reader.scan()}


def test_a_lost_key_object_is_put_back(tmp_path: Path, key: EncryptionKey) -> None:
    """By a machine that remembers it; any other one says that it is lost."""
    values = filled(tmp_path, key)
    (tmp_path / "bucket/memories-1/keys/1").unlink()
    with pytest.raises((EncryptionKeyError, CorruptDataError)):
        everything(tmp_path, key)
    opened(tmp_path, key).close()
    assert values == everything(tmp_path, key)


def test_a_map_of_another_archive_is_emptied_only_if_nothing_waits_in_it(
    tmp_path: Path, key: EncryptionKey
) -> None:
    """Values that are staged were encrypted for the archive that they wait for."""
    store = Away(DirectoryStore(tmp_path / "bucket"))
    backend = opened(tmp_path, key, url=store)
    backend.write(record("k", 1), frame(MARKER))
    store.reached = False
    with pytest.raises(UnavailableError):
        backend.close()
    opened(tmp_path, key, home="x", url=tmp_path / "another").close()
    with pytest.raises(StorageError, match="values that wait for another archive"):
        opened(tmp_path, key, url=tmp_path / "another")
    store.reached = True
    opened(tmp_path, key, url=store).close()
    with closing(opened(tmp_path, key, url=tmp_path / "another", takeover=True)) as other:
        assert [] == list(other.scan())
        other.write(record("new", 5), frame(MARKER))
    with closing(BucketBackend(store, read_only=True, encryption=key)) as reader:
        assert ["k"] == [one.key for one in reader.scan()]


@pytest.mark.parametrize("forged", ["text", 5, None, b"", bytes(100)])
def test_a_forged_copy_of_the_key_is_an_error_of_ours(
    tmp_path: Path, key: EncryptionKey, forged: object
) -> None:
    """SQLite keeps any type in any column."""
    values = filled(tmp_path, key)
    with closing(sqlite3.connect(tmp_path / "home/glacier.sqlite", isolation_level=None)) as db:
        db.execute("DROP TABLE data_key")
        db.execute("CREATE TABLE data_key (header BLOB)")
        db.execute("INSERT INTO data_key VALUES (?)", (forged,))
    with pytest.raises(MemoriesError):
        opened(tmp_path, key)
    assert values == everything(tmp_path, key)


def test_an_archive_that_is_not_there_is_made_by_no_reader(
    tmp_path: Path, key: EncryptionKey
) -> None:
    """A wrong URL is not an empty archive."""
    with pytest.raises(RefusedError):
        everything(tmp_path, key)
    assert not (tmp_path / "bucket").exists() or not files_of(tmp_path / "bucket")


def test_damage_is_set_aside_without_showing_what_it_was(
    tmp_path: Path, key: EncryptionKey
) -> None:
    """The reason names keys."""
    filled(tmp_path, key)
    with closing(opened(tmp_path, key)) as backend:
        found = backend.lookup(f"{NAME}-9")
        assert found is not None
        place = ObjectLocation.decode(found.place)
        path = tmp_path / "bucket/memories-1" / place.name
        spoilt = bytearray(path.read_bytes())
        spoilt[1_000_000] ^= 1
        path.write_bytes(spoilt)
        checked = backend.check(repair=True)
        assert f"{NAME}-9" in {one.key for one in checked}
        for name, stored in (files_of(tmp_path / "bucket") | files_of(tmp_path / "home")).items():
            assert MARKER not in stored, name
