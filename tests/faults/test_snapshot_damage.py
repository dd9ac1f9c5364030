"""A damaged, foreign or hostile snapshot file is refused by name, whatever byte is wrong."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from tests.support.snapshot_files import HEAD, elsewhere, item, record

from memories import codecs
from memories.errors import CorruptDataError, MemoriesError, StorageError
from memories.frames.writer import pack
from memories.model.tiers import TierName
from memories.snapshot import (
    Base,
    Item,
    Linked,
    Packed,
    Reference,
    SnapshotRow,
    Whole,
    create,
    manifest,
    open_snapshot,
    verification,
    writer,
)

IDENTITY = bytes(16)


def small_file(path: Path) -> bytes:
    """Write a snapshot that has every kind of part, and return its bytes."""
    items = [
        elsewhere("linked", Linked(0, 64, 320)),
        item("packed-1", b"tiny"),
        item("packed-2", b"other"),
        elsewhere("reference", Reference(b"object", 9)),
        item("whole", bytes(5_000)),
    ]
    create(path, items, sequence=5, bases=[Base(IDENTITY, "base")], created_at=1.0)
    return path.read_bytes()


def check_whole(path: Path) -> None:
    """Do what a restore does before it changes anything."""
    with open_snapshot(path) as snapshot:
        snapshot.verify()


def test_the_sums_of_large_frames_cover_every_byte_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their data are checked by what their heads say, which is faster than CRC-32."""
    by_crc, bodies = list[bytes](), verification._bodies
    monkeypatch.setattr(verification, "_LARGE_BYTES", 4096)
    monkeypatch.setattr(
        verification, "_bodies", lambda member: by_crc.append(member.name) or bodies(member)
    )
    path, array = tmp_path / "s", np.arange(700.0)[:-3]
    noise = np.random.default_rng(0).integers(0, 50, 9000)
    for value, compression in ((array, "none"), (noise, "zstd"), ([array, "text", array], "none")):
        frame = pack(codecs.encode(value), key="k", version=1, compression=compression)
        create(path, [Item(record("k"), frame.segments)], sequence=1)
        check_whole(path)
        with open_snapshot(path) as snapshot:
            _, start, length = next(iter(snapshot.items()))
        data = path.read_bytes()
        with path.open("r+b") as file:
            for at in (
                *range(start, start + length, 13),
                *range(start + length - 70, start + length),
            ):
                os.pwrite(file.fileno(), bytes([data[at] ^ 1 << at % 8]), at)
                with pytest.raises(CorruptDataError, match="of its member 'k"):
                    check_whole(path)
                os.pwrite(file.fileno(), data[at : at + 1], at)
    assert "k.frame" not in map(bytes.decode, by_crc) and "k.npy" not in map(bytes.decode, by_crc)


@pytest.mark.parametrize("bits", [1, pytest.param(8, marks=pytest.mark.torture)])
def test_every_byte_of_the_file_is_covered(tmp_path: Path, bits: int) -> None:
    """There is none whose change a restore would not notice; the campaign flips each bit."""
    path = tmp_path / "s"
    data = bytearray(small_file(path))
    check_whole(path)
    silent = []
    fd = os.open(path, os.O_RDWR)
    for at in range(len(data)):
        # All bits of the bytes that mean something, one of those in a run of zeros.
        for bit in range(8) if bits == 8 and (data[at] or at % 97 == 0) else (at % 8,):
            os.pwrite(fd, bytes([data[at] ^ 1 << bit]), at)
            try:
                check_whole(path)
            except CorruptDataError as error:
                assert str(path) in str(error)
            else:
                silent.append((at, bit))
        os.pwrite(fd, data[at : at + 1], at)
    os.close(fd)
    check_whole(path)
    assert [] == silent


def test_every_truncation_is_noticed_when_the_file_is_opened(tmp_path: Path) -> None:
    """A copy that was cut short must not need a full read to be recognised."""
    path = tmp_path / "s"
    data = small_file(path)
    for size in [*range(0, len(data), 61), *range(len(data) - 400, len(data))]:
        path.write_bytes(data[:size])
        with pytest.raises(CorruptDataError):
            open_snapshot(path)


@pytest.mark.parametrize("extra", [b"\0", b"x" * 97, bytes(70_000)])
@pytest.mark.parametrize("front", [True, False])
def test_bytes_around_the_file_are_noticed(tmp_path: Path, extra: bytes, front: bool) -> None:
    """ZIP tools accept both; for us the library never wrote such a file."""
    path = tmp_path / "s"
    data = small_file(path)
    path.write_bytes(extra + data if front else data + extra)
    with pytest.raises(CorruptDataError):
        open_snapshot(path)


@given(st.data())
def test_overwritten_ranges_are_noticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Zeroed blocks and garbage, at any place and of any length."""
    path = tmp_path_factory.mktemp("garbage") / "s"
    good = small_file(path)
    at = data.draw(st.integers(0, len(good) - 1))
    garbage = data.draw(st.binary(min_size=1, max_size=len(good) - at) | st.just(bytes(4096)))
    bad = (good[:at] + garbage + good[at + len(garbage) :])[: len(good)]
    path.write_bytes(bad)
    if bad == good:
        check_whole(path)
    else:
        with pytest.raises(CorruptDataError):
            check_whole(path)


def test_two_values_swapped_are_noticed(tmp_path: Path) -> None:
    """Each member is sound by itself; only the manifest knows which belongs where."""
    for name, bodies in (("a", "12"), ("b", "21")):
        items = [item(f"k{n}", body.encode() * 6_000) for n, body in enumerate(bodies)]
        create(tmp_path / name, items, sequence=1, identity=IDENTITY, created_at=1.0)
    a, b = ((tmp_path / name).read_bytes() for name in "ab")
    directory = a.index(b"PK\x01\x02")
    (tmp_path / "mix").write_bytes(a[: a.index(b"memsnap\n")] + b[b.index(b"memsnap\n") :])
    assert directory == b.index(b"PK\x01\x02")
    with pytest.raises(CorruptDataError):
        check_whole(tmp_path / "mix")


def foreign_zip(path: Path) -> None:
    """Write a sound ZIP file that is no snapshot."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(10_000_000))


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x05\x06" + bytes(18)),
        lambda path: path.write_bytes(os.urandom(100_000)),
        foreign_zip,
    ],
)
def test_other_files_are_refused(tmp_path: Path, write: Callable[[Path], object]) -> None:
    """Whatever a path points at by mistake, the answer is one clear error."""
    write(tmp_path / "s")
    with pytest.raises(CorruptDataError, match="cannot be opened: it is not a snapshot, or is"):
        open_snapshot(tmp_path / "s")


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    """A FIFO would block for ever, a device would never end."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    for path in (tmp_path / "fifo", tmp_path / "directory", "/dev/zero", tmp_path / "absent"):
        with pytest.raises(StorageError, match=str(path)):
            open_snapshot(path)


def test_a_newer_format_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader of an old version must tell its user what to do."""
    monkeypatch.setattr(manifest, "FORMAT", 2)
    create(tmp_path / "s", [], sequence=0)
    monkeypatch.undo()
    with pytest.raises(CorruptDataError, match="format 2"):
        open_snapshot(tmp_path / "s")


def forge(path: Path, change: Callable[[list[SnapshotRow]], list[SnapshotRow]]) -> None:
    """Write a snapshot whose checksums are all right and whose manifest says what `change` says."""

    class Builder(manifest.PageBuilder):
        def flush(self) -> bytes:
            rows = [msgspec.msgpack.decode(row, type=SnapshotRow) for row in self._rows]
            changed = change(rows)
            page = msgspec.msgpack.encode(changed)
            self.pages.append((len(page), xxhash.xxh3_64_intdigest(page)))
            self.keys = len(changed)
            return page

    items = [item("after", b"x" * 6_000), item("packed", b"tiny"), item("whole", bytes(5_000))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "PageBuilder", Builder)
        create(path, items, sequence=5)


def moved(which: str, /, **fields: object) -> Callable[[list[SnapshotRow]], list[SnapshotRow]]:
    """Return a change of one row."""
    return lambda rows: [
        msgspec.structs.replace(row, **fields) if row.key == which else row for row in rows
    ]


def at(
    key: str, offset: int = 0, length: int = 0
) -> Callable[[list[SnapshotRow]], list[SnapshotRow]]:
    """Return a change that shifts and lengthens one extent."""

    def change(rows: list[SnapshotRow]) -> list[SnapshotRow]:
        where = next(row.where for row in rows if row.key == key)
        assert isinstance(where, (Whole, Packed))
        fields = {"offset": where.offset + offset, "length": where.length + length}
        return moved(key, where=msgspec.structs.replace(where, **fields))(rows)

    return change


LIES: dict[str, Callable[[list[SnapshotRow]], list[SnapshotRow]]] = {
    "a key twice": lambda rows: [rows[0], *rows],
    "keys out of order": lambda rows: [rows[1], rows[0], rows[2]],
    "two keys, one value": lambda rows: [*rows, msgspec.structs.replace(rows[1], key="z")],
    "two keys, one member": lambda rows: [*rows, msgspec.structs.replace(rows[0], key="z")],
    "a member that no row names": lambda rows: [row for row in rows if row.key != "whole"],
    "a value longer than its member": at("whole", length=64),
    "a value shorter than its member": at("whole", length=-64),
    "a value that starts late": at("whole", offset=64, length=-64),
    "a small value beyond its member": at("packed", length=5_000),
    "a small value off the line": at("packed", offset=1),
    "a small value in a large one": moved("packed", where=Packed(1_024, 64)),
    "far beyond the file": moved("whole", where=Whole(2**62, 2**62, 0)),
    "negative": moved("whole", where=Packed(-64, 64)),
    "another's name": moved("whole", key="whole2"),
    "a version from the future": moved("whole", version=6),
    "no version": moved("whole", version=0),
    "an impossible key": moved("packed", key="b\0b"),
    "an empty key": moved("after", key=""),
    "a base that is not named": moved("packed", where=Linked(0, 0, 64)),
    "a huge size": moved("whole", size=2**63),
    "an unknown tier": moved("whole", tier="lava"),
    "no row": lambda rows: [],
}


@pytest.mark.parametrize("lie", LIES)
def test_a_forged_manifest_is_refused_when_opened(tmp_path: Path, lie: str) -> None:
    """An attacker computes every checksum; the numbers must still make sense together."""
    forge(tmp_path / "s", lambda rows: rows)
    check_whole(tmp_path / "s")  # The forging itself does no harm.
    forge(tmp_path / "s", LIES[lie])
    with pytest.raises(CorruptDataError):
        open_snapshot(tmp_path / "s")


def test_a_manifest_that_miscounts_its_keys_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that a page lost would be keys that a replacing restore removes."""
    seven = property(lambda self: 7, lambda self, count: None)
    monkeypatch.setattr(manifest.PageBuilder, "keys", seven, raising=False)
    create(tmp_path / "s", [item("k", b"")], sequence=1)
    with pytest.raises(CorruptDataError, match="7 keys"):
        open_snapshot(tmp_path / "s")


def test_a_manifest_nested_without_end_is_refused(tmp_path: Path) -> None:
    """Deep nesting must not exhaust the stack."""

    class Builder(manifest.PageBuilder):
        def flush(self) -> bytes:
            page = b"\x91" * 200_000
            self.pages.append((len(page), xxhash.xxh3_64_intdigest(page)))
            return page

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "PageBuilder", Builder)
        create(tmp_path / "s", [], sequence=1)
    with pytest.raises(CorruptDataError):
        open_snapshot(tmp_path / "s")


@pytest.mark.parametrize("name", ["../../etc/cron.d/x.frame", "/abs.frame", "other.frame"])
def test_names_that_are_not_the_keys_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A file whose member names climb out must not be taken for ours, nor handed on."""
    monkeypatch.setattr(writer, "member_name", lambda key, npy: name)
    create(tmp_path / "s", [item("k", bytes(5_000))], sequence=1)
    with pytest.raises(CorruptDataError, match="another name"):
        open_snapshot(tmp_path / "s")


def test_declared_sizes_are_checked_before_memory_is_taken(tmp_path: Path) -> None:
    """A few bytes must not make us allocate gigabytes."""
    path = tmp_path / "s"
    data = small_file(path)
    tail = len(data) - 98
    zip64 = data.index(b"PK\x01\x02") + 46 + len("whole.frame")
    places = [(tail + field,) for field in (24, 32, 40, 48)]  # Counts, size and offset at the end.
    places += [(zip64 + 4, zip64 + 12), (zip64 + 20,)]  # Sizes and offset of the first member.
    for fields in places:
        bad = bytearray(data)
        for field in fields:
            struct.pack_into("<Q", bad, field, 2**64 - 1)
        path.write_bytes(bad)
        tracemalloc.start()
        try:
            with pytest.raises(CorruptDataError):
                open_snapshot(path)
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()


def test_a_file_that_shrinks_while_it_is_verified_is_noticed(tmp_path: Path) -> None:
    """Reading beyond the end must end in an error of ours."""
    path = tmp_path / "s"
    create(path, [item("k", bytes(3_000_000))], sequence=1)
    with open_snapshot(path) as snapshot:
        os.truncate(path, 1_000_000)
        with pytest.raises(CorruptDataError, match="shorter"):
            snapshot.verify()


def test_opening_never_writes_to_the_file(tmp_path: Path) -> None:
    """Snapshots lie on read-only media, and others read them at the same time."""
    data = small_file(tmp_path / "s")
    (tmp_path / "s").chmod(0o400)
    check_whole(tmp_path / "s")
    assert data == (tmp_path / "s").read_bytes()


def test_frames_are_given_within_the_file_only(tmp_path: Path) -> None:
    """An extent that lies is an error, not a short value."""
    data = small_file(tmp_path / "s")
    with open_snapshot(tmp_path / "s") as snapshot:
        for extent in ((len(data) - 10, 11), (-1, 5), (0, -1), (2**63, 1)):
            with pytest.raises(MemoriesError):
                snapshot.frame(*extent)


def test_a_record_of_any_shape_can_be_written(tmp_path: Path) -> None:
    """The fields at their limits."""
    extreme = record("k" * 4096, 2**62, tier=TierName.HOT, size=2**62, stored_at=0.0, kind="é" * 99)
    create(tmp_path / "s", [Item(extreme, [memoryview(HEAD)])], sequence=2**62)
    check_whole(tmp_path / "s")
