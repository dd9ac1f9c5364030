"""An encrypted store: nothing in it is read or exchanged; without the key nothing is lost."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from xxhash import xxh3_64_intdigest

from memories.backends.disk import DiskBackend, data_keys
from memories.backends.disk.log_format import (
    FILE,
    HEADER_BYTES,
    INLINE,
    MAGIC,
    PLACE,
    peek,
    unpack_head,
)
from memories.backends.disk.paths import IDENTITY, StorePaths
from memories.backends.disk.reader import GoneError
from memories.errors import (
    CorruptDataError,
    EncryptionKeyError,
    KeyNotFoundError,
    MemoriesError,
    StorageError,
)
from memories.sealing.master_key import EncryptionKey, MasterSecret, append_version, create_file
from memories.testing.backends import frame_for, record_for
from memories.testing.faults import FailingFiles, flip

MARKER = b"planted-marker"
LARGE = 2 << 20
Change = Callable[[Path], object]


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    create_file(tmp_path / "key", "prod")
    return tmp_path / "key"


@pytest.fixture
def key(key_file: Path) -> EncryptionKey:
    return EncryptionKey.from_file(key_file)


def content(number: int) -> bytes:
    """Return the frame of a value: small ones, one above a chunk, and a large one."""
    size = {8: 200_000, 9: LARGE}.get(number, 30 + number)
    return MARKER + random.Random(number).randbytes(size)


def filled(path: Path, key: EncryptionKey) -> dict[str, bytes]:
    """Make a store with ten values, runs of the index, a log behind them, and tombstones."""
    values = {f"{MARKER.decode()}-{number}": content(number) for number in range(10)}
    with DiskBackend(path, encryption=key) as backend:
        for version, (name, data) in enumerate(values.items(), start=1):
            backend.write(record_for(name, version, kind=MARKER.decode()), frame_for(data))
        backend.write(record_for("gone", 50), frame_for(MARKER))
        backend.remove("gone", 51)
        backend.sync()
    return values


def everything(path: Path) -> dict[str, bytes]:
    """Return every file of a store but its lock, whose text names the process."""
    files = [one for one in sorted(path.rglob("*")) if one.is_file() and one.name != "LOCK"]
    return {str(one.relative_to(path)): one.read_bytes() for one in files}


def read_all(path: Path, key: EncryptionKey) -> dict[str, bytes]:
    with DiskBackend(path, encryption=key, read_only=True) as backend:
        return {record.key: bytes(backend.read(record)) for record in backend.scan()}


def test_no_file_holds_a_value_or_a_name(tmp_path: Path, key: EncryptionKey) -> None:
    """Also not while the store is open, and not after a checkpoint or a compaction."""
    values = filled(tmp_path / "s", key)
    with DiskBackend(tmp_path / "s", encryption=key) as backend:
        backend.write(record_for(MARKER.decode(), 99), frame_for(MARKER * 9))
        backend.sync()
        for _ in range(2):
            for name, data in everything(tmp_path / "s").items():
                assert MARKER not in data, name
                assert b"gone" not in data, name
            writer = backend._writer
            assert writer is not None
            writer.checkpoint(seal=True)
            backend.resize(8 << 20)
        assert (tmp_path / "s/index/manifest").exists()
    assert values | {MARKER.decode(): MARKER * 9} == read_all(tmp_path / "s", key)


def test_a_store_is_read_beside_its_writer(tmp_path: Path, key: EncryptionKey) -> None:
    """A reader follows the log as it grows."""
    with DiskBackend(tmp_path / "s", encryption=key) as backend:
        reader = DiskBackend(tmp_path / "s", encryption=key, read_only=True)
        for number in range(10):
            backend.write(record_for(f"k{number}", number + 1), frame_for(content(number)))
        reader.refresh()
        frames = {record.key: bytes(reader.read(record)) for record in reader.scan()}
        assert {f"k{number}": content(number) for number in range(10)} == frames
        reader.close()


def test_many_are_written_and_read_together(tmp_path: Path, key: EncryptionKey) -> None:
    """Batches, expiry and terms go through the same place as single values."""
    with DiskBackend(tmp_path / "s", encryption=key) as backend:
        items = [(record_for(f"k{n:03}", n + 1), frame_for(content(n % 10))) for n in range(40)]
        records = backend.write_many(items)
        assert [content(n % 10) for n in range(40)] == backend.read_many(records)
        found = backend.use_neighbours(records[:8], lambda frame, record: frame, b"")
        assert [content(n) for n in range(8)] == found
        amended = backend.amend(records[0])
        assert content(0) == backend.read(amended)
        assert 3 == backend.remove_many([(f"k{n:03}", 100 + n) for n in range(3)])
        with backend.renaming("new", "k004", 200):
            backend.write(record_for("new", 199), frame_for(content(4)))
        assert [] == backend.check()
    with DiskBackend(tmp_path / "s", encryption=key) as backend:
        assert backend.lookup("k004") is None
        assert 37 == backend.usage().keys


@pytest.mark.parametrize("mmap", [True, False])
def test_parts_of_a_large_frame_are_decrypted_alone(
    tmp_path: Path, key: EncryptionKey, mmap: bool
) -> None:
    """A region of an array costs what the region costs."""
    with DiskBackend(tmp_path / "s", encryption=key, mmap=mmap) as backend:
        for size in (100, 300_000, LARGE):
            data = os.urandom(size)
            kept = backend.write(record_for("k", size), frame_for(data, pieces=3))
            assert size == backend.ranged_length(kept)
            spans = [(0, 10), (size - 7, size), (size // 2, size // 2 + 5), (3, 3)]
            expected = [data[start:stop] for start, stop in spans]
            assert expected == backend.read_ranges(kept, spans)
            with pytest.raises(CorruptDataError):
                backend.read_ranges(kept, [(0, size + 1)])


@pytest.mark.parametrize(
    ("spoil", "error", "said"),
    [
        ("no key", EncryptionKeyError, "is encrypted: open it with encryption="),
        ("another key", EncryptionKeyError, "'prod', and another one was given"),
        ("another secret", EncryptionKeyError, "is not the key with which"),
        ("another version", EncryptionKeyError, "holds version 7"),
        ("no data key", CorruptDataError, "holds no data key"),
        ("a damaged data key", CorruptDataError, "restore it from a backup"),
        ("another identity", EncryptionKeyError, "is not the key with which"),
    ],
)
@pytest.mark.parametrize("read_only", [True, False])
def test_without_the_key_nothing_is_read_and_nothing_changes(
    tmp_path: Path, key: EncryptionKey, key_file: Path,
    spoil: str, error: type[MemoriesError], said: str, read_only: bool,
) -> None:  # fmt: skip
    """It is refused before the recovery, for which every record would look torn."""
    path, given = tmp_path / "s", key
    values = filled(path, key)
    backup, secret = tmp_path / "backup", key_file.read_text()
    shutil.copytree(path, backup)
    match spoil:
        case "no key":
            given = None  # type: ignore[assignment]
        case "another key":
            key_file.write_text(MasterSecret.new("test").text)
        case "another secret":
            key_file.write_text(MasterSecret.new("prod").text)
        case "another version":
            key_file.write_text(secret.replace(":1:", ":7:"))
        case "no data key":
            shutil.rmtree(path / "keys")
        case "a damaged data key":
            (path / "keys/00000001.key").write_bytes(b"{")
        case _:
            (path / "stores/identity").write_bytes(os.urandom(16))
    before = everything(path)
    with pytest.raises(error, match=said):
        DiskBackend(path, encryption=given, read_only=read_only)
    with pytest.raises(error, match=said):
        DiskBackend(path, encryption=given, read_only=read_only, repair=True)
    assert before == everything(path)
    key_file.write_text(secret)
    shutil.copytree(backup, path, dirs_exist_ok=True)
    assert values == read_all(path, key)


def test_a_plain_store_is_neither_encrypted_nor_changed(tmp_path: Path, key: EncryptionKey) -> None:
    """Half of it would stay as it is; the error says how to move."""
    path = tmp_path / "s"
    with DiskBackend(path) as backend:
        backend.write(record_for("k", 1), frame_for(MARKER))
    before = everything(path)
    with pytest.raises(EncryptionKeyError, match="restore a snapshot of it into a new"):
        DiskBackend(path, encryption=key)
    assert before == everything(path)
    assert "keys" not in {one.name for one in path.iterdir()}
    assert b'{"format":"memories cold log","version":1}\n' == before["FORMAT"]


def test_a_store_that_has_lost_its_format_is_still_encrypted(
    tmp_path: Path, key: EncryptionKey
) -> None:
    """Without the key it is refused, and not begun anew; with it, it is whole."""
    path = tmp_path / "s"
    values = filled(path, key)
    (path / "FORMAT").unlink()
    before = everything(path)
    with pytest.raises(EncryptionKeyError, match="is encrypted"):
        DiskBackend(path)
    assert before == everything(path)
    DiskBackend(path, encryption=key).close()
    assert values == read_all(path, key)
    (path / "FORMAT").write_text('{"format": "memories cold log", "version": 1}')
    with pytest.raises(EncryptionKeyError, match="is encrypted"):
        DiskBackend(path)


def test_a_creation_may_end_at_any_call(tmp_path: Path, key: EncryptionKey) -> None:
    """The next opening makes what is missing, and keeps what is there."""
    for name in ("identity", "00000001.key", "FORMAT"):
        path = tmp_path / name
        DiskBackend(path, encryption=key).close()
        for later in ("FORMAT", "keys/00000001.key", "stores/identity"):
            (path / later).unlink()
            if later.endswith(name):
                break
        if name == "identity":
            shutil.rmtree(path / "keys")
        values = filled(path, key)
        assert values == read_all(path, key)


@pytest.mark.parametrize("folder", ["log", "values", "index"])
def test_every_altered_byte_is_an_error_or_does_no_harm(
    tmp_path: Path, key: EncryptionKey, folder: str
) -> None:
    """Whatever is flipped: a read gives the value or an error, and never another value."""
    values = filled(tmp_path / "s", key)
    chance = random.Random(folder)
    for file in sorted((tmp_path / "s" / folder).iterdir()):
        data = file.read_bytes()
        for _ in range(12):
            path = tmp_path / "copy"
            # A copy by links; the altered file alone is another one.
            shutil.copytree(tmp_path / "s", path, copy_function=os.link)
            at = chance.randrange(len(data))
            forged = data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
            (path / folder / file.name).unlink()
            (path / folder / file.name).write_bytes(forged)
            assert_right_or_refused(path, key, values)
            shutil.rmtree(path)


def assert_right_or_refused(path: Path, key: EncryptionKey, values: dict[str, bytes]) -> None:
    try:
        backend = DiskBackend(path, encryption=key, read_only=True)
    except MemoriesError:
        return
    with backend:
        for name, data in values.items():
            try:
                record = backend.lookup(name)
                frame = None if record is None else backend.read(record)
            except (CorruptDataError, KeyNotFoundError, StorageError):
                continue
            assert frame in (None, data)


def test_frames_cannot_be_exchanged(tmp_path: Path, key: EncryptionKey) -> None:
    """Not with that of another key, an older one of the same key, nor one of another store."""
    for kind, size in ((INLINE, 1000), (FILE, LARGE)):
        path, other = tmp_path / f"s{size}", tmp_path / f"t{size}"
        places = []
        for one in (path, other):
            with DiskBackend(one, encryption=key) as backend:
                old = backend.write(record_for("a", 1), frame_for(os.urandom(size)))
                foreign = backend.write(record_for("b", 2), frame_for(os.urandom(size)))
                stored = [stored_bytes(one, record.place) for record in (old, foreign)]
                new = backend.write(record_for("a", 3), frame_for(os.urandom(size)))
                places.append((stored, new))
        (stored, new), (elsewhere, _) = places
        assert kind == PLACE.unpack(new.place)[0]
        for forged in (*stored, elsewhere[0], b"\0" * len(stored[0])):
            put_bytes(path, new.place, forged)
            with DiskBackend(path, encryption=key, read_only=True) as backend:
                with pytest.raises(CorruptDataError, match="the frame of 'a' is damaged"):
                    backend.read(new)
                with pytest.raises(CorruptDataError, match="the frame of 'a' is damaged"):
                    backend.read_ranges(new, [(5, 6)])
                assert backend.small_reads.find("a") is None


def file_of(path: Path, place: bytes) -> tuple[Path, int, int]:
    kind, number, offset, length = PLACE.unpack(place)
    name = f"log/{number:08}.seg" if kind == INLINE else f"values/{number:08}.val"
    return path / name, offset, length


def stored_bytes(path: Path, place: bytes) -> bytes:
    file, offset, length = file_of(path, place)
    return file.read_bytes()[offset : offset + length]


def put_bytes(path: Path, place: bytes, data: bytes) -> None:
    file, offset, length = file_of(path, place)
    assert len(data) == length
    with file.open("r+b") as opened:
        opened.seek(offset)
        opened.write(data)


def test_an_altered_record_is_none_though_its_sum_holds(tmp_path: Path, key: EncryptionKey) -> None:
    """The sum needs no key; the tag does."""
    filled(tmp_path / "s", key)
    data = min((tmp_path / "s" / "log").iterdir()).read_bytes()
    data = data[data.index(MAGIC) :]
    length = peek(data)
    assert length is not None
    front, body = data[: HEADER_BYTES - 8], bytearray(data[HEADER_BYTES:length])
    with DiskBackend(tmp_path / "s", encryption=key) as backend:
        seal = backend._files.seal
        assert unpack_head(data[:length], seal) is not None
        body[len(body) // 2] ^= 1
        head_sum = xxh3_64_intdigest(front + body).to_bytes(8, "little")
        assert unpack_head(front + head_sum + body, seal) is None


def test_an_altered_index_is_built_again_though_its_sums_hold(
    tmp_path: Path, key: EncryptionKey
) -> None:
    """Its manifest, and the heads of its runs: the log says the same."""
    values = filled(tmp_path / "s", key)
    manifest = tmp_path / "s" / "index" / "manifest"
    whole = manifest.read_bytes()
    body = whole[16:-1] + bytes([whole[-1] ^ 1])
    manifest.write_bytes(whole[:8] + xxh3_64_intdigest(body).to_bytes(8, "little") + body)
    assert values == read_all(tmp_path / "s", key)
    manifest.write_bytes(whole)
    for run in (tmp_path / "s" / "index").glob("*.run"):
        flip(run, 0)
    assert values == read_all(tmp_path / "s", key)


def test_a_lost_or_cut_file_of_a_value_is_named(tmp_path: Path, key: EncryptionKey) -> None:
    """As in a store that is not encrypted."""
    with DiskBackend(tmp_path / "s", encryption=key) as backend:
        record = backend.write(record_for("large", 1), frame_for(os.urandom(LARGE)))
        backend.sync()  # Else a slow machine notices only at the end that the file is lost.
        (file,) = (tmp_path / "s" / "values").iterdir()
        for place in (b"", PLACE.pack(FILE, 1, 1 << 62, 5)):
            with pytest.raises(GoneError):
                backend._reader.read(replace(record, place=place))
        os.truncate(file, LARGE // 2)
        with pytest.raises(CorruptDataError, match=r"'large' is damaged: .* is cut short"):
            backend.read(record)
        with pytest.raises(CorruptDataError, match=r"'large' is damaged: .* is cut short"):
            backend.read_ranges(record, [(5, 6)])
        file.unlink()
        with pytest.raises(StorageError, match=r"could not read 'large': .* is not there"):
            backend.read(record)


def test_what_repair_sets_aside_is_as_it_lay(tmp_path: Path, key: EncryptionKey) -> None:
    """`lost+found` is beside the store, and for people: it names no key and shows no value."""
    path = tmp_path / "s"
    filled(path, key)
    for file in (path / "values").iterdir():
        with file.open("r+b") as opened:
            opened.seek(file.stat().st_size // 2)
            opened.write(b"x" * 32)
    with DiskBackend(path, encryption=key) as backend:
        (problem,) = backend.check(repair=True)
        assert (f"{MARKER.decode()}-9", True) == (problem.key, problem.repaired)
        assert [] == backend.check()
    set_aside = everything(tmp_path / "lost+found")
    assert 2 == len(set_aside)
    for name, data in set_aside.items():
        assert MARKER not in data, name


def test_a_rotation_wraps_anew_and_writes_no_value(
    tmp_path: Path, key: EncryptionKey, key_file: Path
) -> None:
    """Also beside the writer; then the old version of the master key is not needed any more."""
    path, old = tmp_path / "s", key_file.read_text()
    values = filled(path, key)
    assert ("prod", 1, 0, 1) == data_keys.rotate(path, key)
    append_version(key_file)
    before = everything(path)
    with DiskBackend(path, encryption=key) as backend:
        assert ("prod", 2, 1, 1) == data_keys.rotate(path, key)
        assert ("prod", 2, 0, 1) == data_keys.rotate(path, key)
        backend.write(record_for("later", 77), frame_for(MARKER))
    assert 2 == data_keys.wrapped_keys(path)[0].version
    after = everything(path)
    changed = {name for name in before if before[name] != after.get(name)}
    assert "keys/00000001.key" in changed
    assert not {name for name in changed if name.startswith("values/")}
    whole = key_file.read_text()
    key_file.write_text(whole.splitlines()[-1])
    assert values | {"later": MARKER} == read_all(path, key)
    key_file.write_text(old)
    with pytest.raises(EncryptionKeyError, match="version 2 of the key 'prod'"):
        DiskBackend(path, encryption=key)
    create_file(tmp_path / "other", "other")
    key_file.write_text(whole)
    other = EncryptionKey.from_file(tmp_path / "other")
    assert ("other", 1, 1, 1) == data_keys.rotate(path, key, other)
    assert values | {"later": MARKER} == read_all(path, other)
    with pytest.raises(StorageError, match="holds no encrypted store"):
        data_keys.rotate(tmp_path / "absent", key)


def test_a_copy_of_the_directory_is_read_elsewhere_with_the_key(
    tmp_path: Path, key: EncryptionKey
) -> None:
    """A backup of the whole directory is one of the store."""
    values = filled(tmp_path / "s", key)
    shutil.copytree(tmp_path / "s", tmp_path / "elsewhere")
    assert values == read_all(tmp_path / "elsewhere", key)


def test_a_rotation_names_what_keeps_it_from_its_end(tmp_path: Path, key: EncryptionKey) -> None:
    """A disk that fails, a key that is no file, and a store that does not know which it is."""
    path = tmp_path / "s"
    values = filled(path, key)
    create_file(tmp_path / "other", "other")
    other = EncryptionKey.from_file(tmp_path / "other")
    with pytest.raises(StorageError, match="could not rotate the key of the store"):
        data_keys.rotate(path, key, other, FailingFiles(at=1))
    assert values == read_all(path, key)
    (wrapped,) = (path / "keys").iterdir()
    wrapped.rename(tmp_path / "wrapped")
    wrapped.mkdir()
    with pytest.raises(StorageError, match=r"00000001\.key cannot be read"):
        data_keys.rotate(path, key, other)
    wrapped.rmdir()
    (tmp_path / "wrapped").rename(wrapped)
    identity = StorePaths(path).statement(IDENTITY)
    identity.rename(tmp_path / "identity")
    with pytest.raises(CorruptDataError, match="is missing or damaged, and the store is encrypted"):
        data_keys.rotate(path, key, other)
    (tmp_path / "identity").rename(identity)
    assert ("other", 1, 1, 1) == data_keys.rotate(path, key, other)
    assert values == read_all(path, other)
