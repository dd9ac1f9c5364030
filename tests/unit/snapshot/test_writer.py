"""The container: what goes in comes out, for us and for the tools that know only ZIP."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.snapshot_files import HEAD, elsewhere, item, npy, record

from memories.errors import InvalidOptionError
from memories.model.record import Terms
from memories.model.tiers import TierName
from memories.snapshot import Base, Item, Linked, Reference, create, manifest, open_snapshot, writer
from memories.snapshot.checksum import combine, crc32
from memories.snapshot.writer import SMALL_BYTES, SmallItems

BIG = bytes(range(251)) * 40_000


def test_every_frame_comes_back_at_an_aligned_offset(tmp_path: Path) -> None:
    """A frame is mapped where it lies, and arrays in it must be aligned."""
    bodies = {
        f"k{size}": bytes([size % 256]) * size for size in (0, 1, 63, 64, 4000, 9_999, 300_000)
    }
    bodies["kbig"] = BIG
    create(tmp_path / "s", (item(key, bodies[key]) for key in sorted(bodies)), sequence=1)
    with open_snapshot(tmp_path / "s") as snapshot:
        found = {record.key: (at, length) for record, at, length in snapshot.items()}
        frames = {key: snapshot.frame(*extent) for key, extent in found.items()}
        snapshot.verify()
    assert {key: HEAD + body for key, body in bodies.items()} == frames
    assert {0} == {at % 64 for at, _ in found.values()}
    assert all(frame.readonly for frame in frames.values())


def test_records_come_back_whole(tmp_path: Path) -> None:
    """Tier, terms and time must survive: a restore puts values back where they were."""
    terms = Terms(expires_at=9.0, metadata={"sensor": ["S2A", 1]}, pinned=True)
    written = record("k", 7, terms=terms, tier=TierName.GLACIER, size=12, stored_at=3.25, kind="np")
    create(tmp_path / "s", [Item(written, [memoryview(HEAD)])], sequence=7)
    with open_snapshot(tmp_path / "s") as snapshot:
        ((found, _, length),) = snapshot.items()
    assert (256, 256) == (found.stored, length)
    assert written == type(written)(**{**vars_of(found), "stored": 0})


def vars_of(found: object) -> dict[str, object]:
    """Return the fields of a struct."""
    return {name: getattr(found, name) for name in found.__struct_fields__}  # type: ignore[attr-defined]


def test_numpy_opens_a_snapshot_without_us(tmp_path: Path) -> None:
    """The promise that data are never locked in."""
    arrays = {
        "dir/a.npy": np.arange(3_000_000, dtype=">u2"),
        "matrix_1": np.arange(12_000.0).reshape(100, 120),
        "żółw": np.asfortranarray(np.eye(80)),
    }
    items = [item(key, npy(array)) for key, array in arrays.items()]
    create(tmp_path / "s", items, sequence=1)
    with np.load(tmp_path / "s") as loaded:
        np.testing.assert_array_equal(arrays["matrix_1"], loaded["matrix_1"])
        np.testing.assert_array_equal(arrays["dir/a.npy"], loaded["dir/a%2Enpy"])
        np.testing.assert_array_equal(arrays["żółw"], loaded["żółw"])


def test_zip_tools_find_no_fault(tmp_path: Path) -> None:
    """Names, sizes and checksums are those of an ordinary ZIP64 file."""
    items = [item("../up", BIG), item("big", BIG), item("mid", BIG[:50_000]), item("small", b"x")]
    create(tmp_path / "s.zip", items, sequence=1)
    with zipfile.ZipFile(tmp_path / "s.zip") as archive:
        assert None is archive.testzip()
        assert BIG == archive.read("big.frame")
        archive.extractall(tmp_path / "out")
    assert {"out", "s.zip"} == {path.name for path in tmp_path.iterdir()}


def test_small_values_share_members(tmp_path: Path) -> None:
    """A million small values must not be a million ZIP members."""
    bodies = {f"key-{n:05}": bytes([n % 251]) * (n % 97) for n in range(9_000)}
    create(tmp_path / "s", (item(key, bodies[key]) for key in sorted(bodies)), sequence=1)
    assert len(zipfile.ZipFile(tmp_path / "s").namelist()) < 10
    with open_snapshot(tmp_path / "s") as snapshot:
        snapshot.verify()
        assert len(bodies) == snapshot.keys
        for row, at, length in snapshot.items():
            assert HEAD + bodies[row.key] == snapshot.frame(at, length)


def test_an_empty_snapshot_is_a_snapshot(tmp_path: Path) -> None:
    """A store without keys can be saved, and restoring it empties another."""
    create(tmp_path / "s", [], sequence=0)
    with open_snapshot(tmp_path / "s") as snapshot:
        snapshot.verify()
        assert [] == list(snapshot.items())
        assert 0 == snapshot.sequence


def test_a_frame_may_come_in_any_number_of_pieces(tmp_path: Path) -> None:
    """Frames are gather lists: the container must not care where they are cut."""
    pieces = [memoryview(BIG[at : at + 700_001]) for at in range(0, len(BIG), 700_001)]
    lazy = Item(record("lazy"), lambda: [memoryview(HEAD), *pieces])
    create(tmp_path / "s", [item("empty body", b""), lazy], sequence=1)
    with open_snapshot(tmp_path / "s") as snapshot:
        snapshot.verify()
        frames = {row.key: snapshot.frame(at, length) for row, at, length in snapshot.items()}
    assert {"lazy": HEAD + BIG, "empty body": HEAD} == frames


def test_frames_elsewhere_are_listed_but_not_written(tmp_path: Path) -> None:
    """References and links are what keeps an incremental snapshot small."""
    items = [
        elsewhere("before", Linked(0, 64, 5000)),
        elsewhere("bucket", Reference(b"objects/1", 10**12)),
        item("here", b"x" * 5000),
    ]
    base = Base(b"i" * 16, "monday.snapshot")
    created = create(tmp_path / "s", items, sequence=3, bases=[base])
    assert created.file_bytes < 10_000
    with open_snapshot(tmp_path / "s") as snapshot:
        snapshot.verify()
        wheres = {row.key: row.where for row in snapshot.rows()}
        assert [base] == snapshot.root.bases
        with pytest.raises(InvalidOptionError, match="before"):
            list(snapshot.items())
    assert Reference(b"objects/1", 10**12) == wheres["bucket"]
    assert Linked(0, 64, 5000) == wheres["before"]


def test_progress_adds_up_to_the_bytes_written_and_read(tmp_path: Path) -> None:
    """A bar that does not reach its end is worse than none."""
    steps: list[int] = []
    created = create(tmp_path / "s", [item(f"k{n}", BIG) for n in range(3)], sequence=1,
                     progress=steps.append)  # fmt: skip
    assert 0 <= created.file_bytes - sum(steps) < 2_000
    steps.clear()
    with open_snapshot(tmp_path / "s") as snapshot:
        snapshot.verify(steps.append)
    assert 0 <= created.file_bytes - sum(steps) < 2_000


@pytest.mark.parametrize("keys", ["kk", "ba", "aba", "aé\U00010000\uffff"])
def test_keys_out_of_order_are_refused(tmp_path: Path, keys: str) -> None:
    """Order is what shows a repeated key, and what lets two snapshots be compared as they lie."""
    with pytest.raises(InvalidOptionError, match="in order, once"):
        create(tmp_path / "s", [item(key, b"1") for key in keys], sequence=2)
    assert [] == list(tmp_path.iterdir())


def test_rows_come_in_key_order_whatever_the_sizes(tmp_path: Path) -> None:
    """Small values wait for their member to be full; their rows must not come late."""
    keys = sorted(f"k{n}" for n in range(6_000))
    bodies = {key: b"x" * (5_000 if n % 3 else 10) for n, key in enumerate(keys)}
    create(tmp_path / "s", (item(key, bodies[key]) for key in keys), sequence=1)
    with open_snapshot(tmp_path / "s") as snapshot:
        assert keys == [row.key for row in snapshot.rows()]
        for row, at, length in snapshot.items():
            assert HEAD + bodies[row.key] == snapshot.frame(at, length)


@pytest.mark.parametrize("size", [100, 61_504])
def test_a_head_that_fits_no_local_header_is_refused(tmp_path: Path, size: int) -> None:
    """The extra field of a ZIP header ends at 64 KiB, and heads are whole lines of 64 bytes."""
    segments = [memoryview(bytes(size)), memoryview(bytes(SMALL_BYTES))]
    with pytest.raises(InvalidOptionError, match="not with a head"):
        create(tmp_path / "s", [Item(record("k"), segments)], sequence=1)


def test_the_longest_head_and_name_fit(tmp_path: Path) -> None:
    """The frame format's bound on heads is this container's bound."""
    segments = [memoryview(bytes(61_440)), memoryview(BIG)]
    create(tmp_path / "s", [Item(record("é" * 2048), segments)], sequence=1)
    assert None is zipfile.ZipFile(tmp_path / "s").testzip()


def test_views_outlive_the_file(tmp_path: Path) -> None:
    """A reader's array must not die because a snapshot was closed, replaced or deleted."""
    create(tmp_path / "s", [item("k", BIG)], sequence=1)
    with open_snapshot(tmp_path / "s") as snapshot:
        ((_, at, length),) = snapshot.items()
        frame = snapshot.frame(at, length)
    create(tmp_path / "s", [item("k", b"other")], sequence=2)
    (tmp_path / "s").unlink()
    assert HEAD + BIG == frame


def test_creating_takes_memory_for_no_more_than_one_value(tmp_path: Path) -> None:
    """Nothing may grow with the bytes written, and little with the number of keys."""
    items = (item(f"key-{n:05}", BIG[:5_000] if n % 50 else BIG) for n in range(3_000))
    tracemalloc.start()
    try:
        create(tmp_path / "s", items, sequence=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000


def test_a_link_is_followed_to_the_file_it_names(tmp_path: Path) -> None:
    """`latest.snapshot -> disk2/...` must be replaced where it points, not by a file."""
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to("far/s")
    create(tmp_path / "link", [item("k", b"1")], sequence=1)
    assert (tmp_path / "link").is_symlink()
    assert [tmp_path / "far" / "s"] == list((tmp_path / "far").iterdir())


@given(st.lists(st.integers(0, 20_000), max_size=12))
def test_any_mix_of_sizes_survives(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    """Members of every length follow each other without a gap."""
    path = tmp_path_factory.mktemp("mix") / "s"
    create(path, [item(f"k{n:02}", BIG[n : n + size]) for n, size in enumerate(sizes)], sequence=1)
    with open_snapshot(path) as snapshot:
        snapshot.verify()
        frames = {row.key: snapshot.frame(at, length) for row, at, length in snapshot.items()}
    assert {f"k{n:02}": HEAD + BIG[n : n + size] for n, size in enumerate(sizes)} == frames


def test_a_snapshot_opens_in_a_fresh_interpreter(tmp_path: Path) -> None:
    """Nothing that is needed to read it lives in the process that wrote it."""
    create(tmp_path / "s", [item("k", BIG)], sequence=1)
    code = (
        "import sys; from memories.snapshot import open_snapshot\n"
        "s = open_snapshot(sys.argv[1]); s.verify(); print([i[0].key for i in s.items()])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "s")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "['k']\n" == done.stdout


def test_sums_of_parts_make_the_sum_of_the_whole() -> None:
    """Several threads sum one member; the result must be what one thread would get."""
    for front, back in (
        (b"", b""),
        (b"a", b""),
        (b"", b"b"),
        (b"\0" * 70, b"x" * 9),
        (b"q", b"\0"),
    ):
        assert crc32(front + back) == combine(crc32(front), crc32(back), len(back))
    data = os.urandom(100_000)
    for at in (1, 63, 4096, 99_999):
        assert crc32(data) == combine(crc32(data[:at]), crc32(data[at:]), len(data) - at)


_OFTEN_SMALL = st.lists(
    st.one_of(
        st.integers(0, 4_000),
        st.integers(0, 4_000),
        st.integers(3_800, 9_000),
        st.just(None),  # In another file.
    ),
    max_size=80,
)


@settings(max_examples=60, deadline=None)
@given(_OFTEN_SMALL, st.integers(1, 30), st.integers(2_000, 60_000))
def test_many_at_once_gives_the_file_that_one_by_one_gives(
    sizes: list[int | None], batch: int, pack_bytes: int
) -> None:
    """However small values are grouped, the file is the same to the last byte."""
    items: list[Item] = []
    for n, size in enumerate(sizes):
        if size is None:
            items.append(elsewhere(f"k{n:03}", Linked(0, 64 * n, 10)))
        else:
            terms = Terms(metadata={"n": [n]}) if n % 5 == 0 else Terms()
            items.append(item(f"k{n:03}", bytes([n]) * size, terms=terms))
    fixed: Any = {"sequence": 1, "identity": b"i" * 16, "created_at": 1.0}
    fixed["bases"] = [Base(b"b" * 16, "base")]
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "_PACK_BYTES", pack_bytes)
        patch.setattr(writer, "_WAITING_ROWS", 7)
        patch.setattr(manifest, "PAGE_BYTES", 700)
        create(Path(name) / "one", items, **fixed)
        create(Path(name) / "many", _grouped(items, batch), **fixed)
        assert (Path(name) / "one").read_bytes() == (Path(name) / "many").read_bytes()
        with open_snapshot(Path(name) / "many") as snapshot:
            snapshot.verify()
            assert [one.record.key for one in items] == [row.key for row in snapshot.rows()]


def _grouped(items: list[Item], batch: int) -> Iterator[Item | SmallItems]:
    """Yield items, small ones up to `batch` at a time."""
    small = SmallItems([], [])
    for one in items:
        segments = one.source if isinstance(one.source, list) else []
        whole = b"".join(segments)
        if 0 < len(whole) < SMALL_BYTES:
            small.records.append(one.record)
            small.frames.append(whole)
        if small.records and (len(small.records) == batch or not 0 < len(whole) < SMALL_BYTES):
            yield small
            small = SmallItems([], [])
        if not 0 < len(whole) < SMALL_BYTES:
            yield one
    if small.records:
        yield small


def test_small_values_out_of_order_are_refused(tmp_path: Path) -> None:
    """Also within a group, and between two."""
    good, frame = [record("a"), record("b")], b"frame"
    for keys in ("ba", "bb", "aab"):
        group = SmallItems([record(key) for key in keys], [frame] * len(keys))
        with pytest.raises(InvalidOptionError, match="in order, once"):
            create(tmp_path / "s", [group], sequence=1)
    with pytest.raises(InvalidOptionError, match="in order, once"):
        create(tmp_path / "s", [SmallItems(good, [frame] * 2)] * 2, sequence=1)
    assert [] == list(tmp_path.iterdir())
