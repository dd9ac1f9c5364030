"""Flipped bits and cut files, in every region of every kind of file, are noticed or harmless."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from tests.support.disk_stores import without_maintenance

from memories.backends.disk import DiskBackend, compaction, run_merge, size_limits
from memories.backends.disk.run import FOOTER, RunFooter
from memories.errors import CorruptDataError, StorageError, UnsupportedTypeError
from memories.model.record import Record, Terms
from memories.testing.backends import frame_for, record_for
from memories.testing.faults import FailingFiles, flip, spread

LARGE = 40_000
Content = dict[str, bytes]
KEYS = [f"key{number:03}" for number in range(120)]
READS: dict[str, Callable[[DiskBackend], list[str]]] = {
    "each": lambda backend: [key for key in KEYS if backend.lookup(key) is not None],
    "each in the log": lambda backend: [key for key in KEYS if backend.newest(key)[1] is not None],
    "all": lambda backend: [record.key for record in backend.scan()],
    "all names": lambda backend: list(backend.ordered("")("")),
    "what has expired": lambda backend: [record.key for record in backend.expired(1e12)],
}
CHANGES: dict[str, Callable[[DiskBackend], object]] = {
    "write": lambda backend: backend.write(record_for("key060", 500), frame_for(b"new")),
    "write many": lambda backend: backend.write_many(
        [(record_for(key, 500), frame_for(b"new")) for key in ("key060", "key061")]
    ),
    "remove": lambda backend: backend.remove("key060", 500),
    "remove many": lambda backend: backend.remove_many([("key060", 500), ("key061", 500)]),
}


def content(key: str, version: int, size: int) -> bytes:
    return (f"{key}@{version} ".encode() * size)[:size]


def verify(record: Record, frame: memoryview) -> None:
    """Stand in for the checksums that a frame carries, bound to key and version."""
    if bytes(frame) != content(record.key, record.version, record.size):
        raise CorruptDataError(f"{record.key!r} is damaged")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Content]]:
    """Build a store with every kind of file, closed cleanly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(size_limits, "SEGMENT_BYTES", 30_000)
        patch.setattr(size_limits, "LARGE_BYTES", LARGE)
        patch.setattr(run_merge, "MERGE_RUNS", 99)
        path = tmp_path_factory.mktemp("damage") / "s"
        held: Content = {}
        with DiskBackend(path, files=FailingFiles()) as backend:
            assert backend._maintenance is not None
            backend._maintenance.stop()
            for version in range(1, 60):
                key = f"k{version % 25}"
                if version % 9 == 0:
                    backend.remove(key, version)
                    held.pop(key, None)
                    continue
                size = LARGE + version if version % 10 == 1 else 40 * version
                held[key] = content(key, version, size)
                backend.write(record_for(key, version, size=size), frame_for(held[key]))
                if version % 20 == 0:
                    assert backend._writer is not None
                    backend._writer.checkpoint()
            pack = path.with_name("pack")
            bodies = [content(f"p{n}", 100 + n, 3000) for n in range(4)]
            pack.write_bytes(b"head" + b"".join(bodies))
            backend.adopt(
                pack,
                [[(record_for(f"p{n}", 100 + n, size=3000), 4 + 3000 * n, 3000)] for n in range(4)],
            )
            held.update({f"p{n}": body for n, body in enumerate(bodies)})
        yield path, held
        assert [] == looked_at(path, held)


def looked_at(path: Path, held: Content, *, gone: bool = False) -> list[str]:
    """Return the keys whose damage was noticed; fail for wrong, missing or resurrected ones.

    A file that is missing is not reported as damaged.
    """
    noticed = []
    with DiskBackend(path, verify=verify, files=FailingFiles()) as backend:
        assert set(held) == {record.key for record in backend.scan()}
        for key, data in held.items():
            try:
                record = backend.lookup(key)
                assert record is not None
                frame = backend.read(record)
                verify(record, frame)
            except CorruptDataError as error:
                assert repr(key) in str(error)
                assert not gone
                noticed.append(key)
            except StorageError as error:
                assert repr(key) in str(error)
                assert gone
                assert "is not there" in str(error)
                noticed.append(key)
            else:
                assert data == frame
    return noticed


def files_of(path: Path) -> list[Path]:
    found = [file.relative_to(path) for file in sorted(path.rglob("*")) if file.is_file()]
    assert {".seg", ".val", ".pack", ".run", ""} == {file.suffix for file in found}
    return [file for file in found if file.name != "LOCK"]


def broken(sound: Path, name: Path, target: Path) -> Path:
    """Copy the store, and return the one file that is to be damaged."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(sound, target)
    return target / name


def test_any_flipped_bit(sound: tuple[Path, Content], tmp_path: Path) -> None:
    """Right, or an error that names the key; never another value, never silently absent."""
    path, held = sound
    noticed = 0
    for name in files_of(path):
        for at in spread((path / name).stat().st_size, 12):
            flip(broken(path, name, tmp_path / "s"), at, bit=at % 8)
            try:
                found = looked_at(tmp_path / "s", held)
            except (CorruptDataError, StorageError) as error:
                assert name.name in str(error) or "FORMAT" in str(name), error
                noticed += 1
            else:
                assert len(found) <= 1
                noticed += len(found)
    assert noticed > 20


def test_any_cut(sound: tuple[Path, Content], tmp_path: Path) -> None:
    """A file that lost its end, or grew one, or is gone."""
    path, held = sound
    for name in files_of(path):
        if name.name == "FORMAT":
            continue
        size = (path / name).stat().st_size
        for kept in [0, 1, size // 2, size - 1, size + 100, None]:
            file = broken(path, name, tmp_path / "s")
            if kept is None:
                file.unlink()
            elif kept > size:
                file.write_bytes(file.read_bytes() + b"x" * 100)
            else:
                file.write_bytes(file.read_bytes()[:kept])
            found = looked_at(tmp_path / "s", held, gone=kept is None)
            if kept is not None and kept > size:
                assert [] == found, name


def test_damage_without_the_index_is_refused_and_repaired(
    sound: tuple[Path, Content], tmp_path: Path
) -> None:
    """A key must not fall back to an older value because the newer one is unreadable."""
    path, held = sound
    refused = 0
    for name in files_of(path):
        if name.suffix != ".seg":
            continue
        for at in spread((path / name).stat().st_size, 10):
            flip(broken(path, name, tmp_path / "s"), at, bit=at % 8)
            shutil.rmtree(tmp_path / "s" / "index")
            try:
                looked_at(tmp_path / "s", held)
            except CorruptDataError as error:
                assert "--repair" in str(error)
                assert name.name in str(error)
                refused += 1
            else:
                continue
            with DiskBackend(
                tmp_path / "s", verify=verify, repair=True, files=FailingFiles()
            ) as mended:
                assert mended.check(repair=True) != []
                for problem in mended.check():
                    # An older record of the key, whose file went when it was replaced.
                    assert "is not there" in problem.what
                    assert problem.key is not None
                    mended.remove(problem.key, 500)
                assert [] == mended.check()
                assert len(held) - 3 <= mended.usage().keys
            with DiskBackend(tmp_path / "s", verify=verify, files=FailingFiles()) as again:
                assert [] == again.check()
    assert refused > 10


def test_two_value_files_swapped(sound: tuple[Path, Content], tmp_path: Path) -> None:
    """A frame is bound to its key and version; decoding it fails."""
    path, held = sound
    first, second = [name for name in files_of(path) if name.suffix == ".val"][:2]
    broken(path, first, tmp_path / "s")
    (tmp_path / "s" / first).unlink()
    (tmp_path / "s" / second).rename(tmp_path / "s" / first)
    shutil.copyfile(path / first, tmp_path / "s" / second)
    assert 2 == len(looked_at(tmp_path / "s", held))


def test_check_names_the_damaged_key_and_repair_drops_it(
    sound: tuple[Path, Content], tmp_path: Path
) -> None:
    """Others are untouched, and the key can be stored again."""
    path, held = sound
    name = next(name for name in files_of(path) if name.suffix == ".val")
    flip(broken(path, name, tmp_path / "s"), 100)
    with DiskBackend(tmp_path / "s", verify=verify) as backend:
        (problem,) = backend.check()
        assert problem.key in held
        assert not problem.repaired
        (problem,) = backend.check(repair=True)
        assert problem.repaired
        assert problem.key is not None
        assert backend.lookup(problem.key) is None
        assert [] == backend.check()
        assert set(held) - {problem.key} == {record.key for record in backend.scan()}
        backend.write(record_for(problem.key, 500, size=5), frame_for(content(problem.key, 500, 5)))
        assert [] == backend.check()


def test_a_lost_index_is_built_again(sound: tuple[Path, Content], tmp_path: Path) -> None:
    """Nothing in the index is worth losing."""
    path, held = sound
    shutil.copytree(path, tmp_path / "s")
    with DiskBackend(tmp_path / "s") as backend:
        before = backend.usage()
    shutil.rmtree(tmp_path / "s" / "index")
    assert [] == looked_at(tmp_path / "s", held)
    with DiskBackend(tmp_path / "s") as backend:
        after = backend.usage()
        assert (before.live, before.keys) == (after.live, after.keys)
        assert 103 == backend.last_version()


def test_another_format_is_refused_by_name(tmp_path: Path) -> None:
    """A store from the future is not read as one of today."""
    DiskBackend(tmp_path / "s").close()
    marker = tmp_path / "s" / "FORMAT"
    marker.write_text(marker.read_text().replace('"version":1', '"version":3'))
    with pytest.raises(StorageError, match="version 3"):
        DiskBackend(tmp_path / "s")


# -- an index that is found damaged while the store is open ---------------------------------------


def filled(path: Path) -> Path:
    """Make a store of small values that end, closed cleanly; return the one run of its index."""
    terms = Terms(expires_at=1e11)
    with without_maintenance(DiskBackend(path)) as backend:
        for version, key in enumerate(KEYS, 1):
            record = record_for(key, version, size=60, terms=terms)
            backend.write(record, frame_for(content(key, version, 60)))
    (run,) = (path / "index").glob("*.run")
    return run


def damage_a_row(run: Path) -> None:
    """Flip a bit of the row of a key in the middle."""
    flip(run, run.read_bytes().index(b"key060"))


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("way", READS)
def test_each_way_to_read_survives_a_damaged_index(
    tmp_path: Path, way: str, read_only: bool
) -> None:
    """It is first read long after the store was opened; the log has all that it has."""
    damage_a_row(filled(tmp_path / "s"))
    with DiskBackend(tmp_path / "s", read_only=read_only) as backend:
        assert KEYS == sorted(set(READS[way](backend)))
        for version, key in enumerate(KEYS, 1):
            record = backend.lookup(key)
            assert record is not None
            assert content(key, version, 60) == backend.read(record)


@pytest.mark.parametrize("read_only", [False, True])
def test_damaged_deadlines_are_taken_from_the_log(tmp_path: Path, read_only: bool) -> None:
    """Each store asks for them: none would have succeeded any more."""
    run = filled(tmp_path / "s")
    data = run.read_bytes()
    footer_at = len(data) - FOOTER.size
    flip(run, RunFooter.parse(data[footer_at:], footer_at, run).expiry_at)
    with DiskBackend(tmp_path / "s", read_only=read_only) as backend:
        assert 1e11 == backend.soonest()
        assert KEYS == sorted(set(READS["what has expired"](backend)))


@pytest.mark.parametrize("read_only", [False, True])
def test_a_view_of_a_damaged_index_says_so(tmp_path: Path, read_only: bool) -> None:
    """The log has no moments: another view is whole, and is of later."""
    damage_a_row(filled(tmp_path / "s"))
    with DiskBackend(tmp_path / "s", read_only=read_only) as backend:
        with backend.view() as view, pytest.raises(StorageError, match="make this call again"):
            list(view)
        with backend.view() as view:
            assert KEYS == [record.key for record in view]


@pytest.mark.parametrize("change", CHANGES)
def test_each_way_to_change_survives_a_damaged_index(tmp_path: Path, change: str) -> None:
    """What was there is replaced, and not counted a second time."""
    damage_a_row(filled(tmp_path / "s"))
    changed = {"key060", "key061"} if change.endswith("many") else {"key060"}
    with without_maintenance(DiskBackend(tmp_path / "s")) as backend:
        CHANGES[change](backend)
        left = set(KEYS) - (changed if change.startswith("remove") else set())
        assert left == {record.key for record in backend.scan()}
        assert len(left) == backend.usage().keys
        assert all(500 == backend.newest(key)[0] for key in changed)
    with DiskBackend(tmp_path / "s") as backend:
        assert left == {record.key for record in backend.scan()}
        assert [] == backend.check()


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("change", ["write", "remove"])
def test_an_index_that_a_replay_finds_damaged(tmp_path: Path, change: str, read_only: bool) -> None:
    """What a writer left behind its last checkpoint leads to rows that nothing else has touched."""
    filled(tmp_path / "s")
    with without_maintenance(DiskBackend(tmp_path / "s")) as backend:
        CHANGES[change](backend)
        backend.sync()
        shutil.copytree(tmp_path / "s", tmp_path / "killed")
    (run,) = (tmp_path / "killed" / "index").glob("*.run")
    damage_a_row(run)
    with DiskBackend(tmp_path / "killed", read_only=read_only) as backend:
        left = set(KEYS) - ({"key060"} if change == "remove" else set())
        assert left == {record.key for record in backend.scan()}
        assert len(left) == backend.usage().keys
        assert 500 == backend.newest("key060")[0]


def test_a_pack_is_emptied_beside_a_damaged_index(tmp_path: Path) -> None:
    """Compaction would have failed at each attempt."""
    source = tmp_path / "source"
    source.write_bytes(b"".join(content(key, 200, 60) for key in KEYS))
    items = [(record_for(key, 200, size=60), 60 * at, 60) for at, key in enumerate(KEYS)]
    with DiskBackend(tmp_path / "s") as backend:
        backend.adopt(source, [items])
    (run,) = (tmp_path / "s" / "index").glob("*.run")
    damage_a_row(run)
    with without_maintenance(DiskBackend(tmp_path / "s")) as backend:
        assert backend._writer is not None
        (number,) = backend._writer.accounting.packs
        assert compaction._empty_pack(backend._writer, number, lambda: None)
        assert {} == backend._writer.accounting.packs
        for record in backend.scan():
            assert content(record.key, 200, 60) == backend.read(record)
        assert len(KEYS) == backend.usage().keys


@pytest.mark.parametrize("hidden", [False, True])
def test_hidden_versions_are_removed_beside_a_damaged_index(tmp_path: Path, hidden: bool) -> None:
    """A restored snapshot replaces what is there: what it lacks would have come back."""
    run = filled(tmp_path / "s")
    with without_maintenance(DiskBackend(tmp_path / "s")) as backend:
        assert backend._writer is not None
        backend.write(record_for("new", 500), frame_for(b"new"))
        if not hidden:
            damage_a_row(run)
        backend.hide_older(300, lambda record: nullcontext())
        if hidden:
            with backend._writer.index_files.merge_lock:
                backend._writer.checkpoint(whole=True)
            (run,) = set((tmp_path / "s" / "index").glob("*.run")) - {run}
            damage_a_row(run)
        assert 1 == backend.usage().keys
        backend.remove_hidden()
        assert 1 == backend.usage().keys
        assert 500 == backend.newest("new")[0]
        assert all(backend.newest(key)[1] is None for key in KEYS)
    with DiskBackend(tmp_path / "s") as backend:
        assert ["new"] == [record.key for record in backend.scan()]


def test_a_merge_of_damaged_runs_reads_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upkeep would otherwise have failed at each attempt."""
    monkeypatch.setattr(run_merge, "MERGE_RUNS", 99)
    with without_maintenance(DiskBackend(tmp_path / "s")) as backend:
        assert backend._writer is not None
        for version, key in enumerate(KEYS[:2], 1):
            backend.write(record_for(key, version), frame_for(b"value"))
            backend._writer.checkpoint()
    older, _ = sorted((tmp_path / "s" / "index").glob("*.run"))
    flip(older, older.read_bytes().index(b"key000"))
    with without_maintenance(DiskBackend(tmp_path / "s")) as backend:
        assert backend._writer is not None
        run_merge.merge_runs(backend._writer, lambda: None, quiet=True)
        assert () == backend._writer.index.runs
        assert KEYS[:2] == [record.key for record in backend.scan()]
    with DiskBackend(tmp_path / "s") as backend:
        assert KEYS[:2] == [record.key for record in backend.scan()]
        assert [] == backend.check()


@pytest.mark.parametrize("read_only", [False, True])
def test_check_reports_a_damaged_index_and_looks_on(tmp_path: Path, read_only: bool) -> None:
    """It says where, changes no file, and verifies the values by the log."""
    run = filled(tmp_path / "s")
    damage_a_row(run)
    with DiskBackend(tmp_path / "s", read_only=read_only) as backend:
        (problem,) = backend.check(dry_run=True)
        assert (None, False) == (problem.key, problem.repaired)
        assert str(run) in problem.what
        assert run.exists()
        assert KEYS == [record.key for record in backend.scan()]


def test_a_repair_sets_a_damaged_index_aside(tmp_path: Path) -> None:
    """The log makes another one."""
    run = filled(tmp_path / "s")
    damage_a_row(run)
    damaged = run.read_bytes()
    with DiskBackend(tmp_path / "s") as backend:
        (problem,) = backend.check(repair=True)
        assert (None, True) == (problem.key, problem.repaired)
        assert [] == backend.check(repair=True)
        assert KEYS == [record.key for record in backend.scan()]
    (kept,) = (tmp_path / "lost+found").rglob("*.run")
    assert damaged == kept.read_bytes()
    with DiskBackend(tmp_path / "s") as backend:
        assert [] == backend.check()


def test_an_index_stays_while_the_log_is_away(tmp_path: Path) -> None:
    """What only the index knows of would be lost with it."""
    run = filled(tmp_path / "s")
    with DiskBackend(tmp_path / "s") as backend:
        damage_a_row(run)
        segment = min((tmp_path / "s" / "log").glob("*.seg"))
        segment.rename(tmp_path / "away")
        for repair in (False, True):
            (problem,) = backend.check(repair=repair)
            assert (None, False) == (problem.key, problem.repaired)
            assert "it cannot be built again now" in problem.what
            assert str(segment) in problem.what
            assert run.exists()
        (tmp_path / "away").rename(segment)
        (problem,) = backend.check(repair=True)
        assert problem.repaired
        assert KEYS == [record.key for record in backend.scan()]


# -- what a check says of other faults ------------------------------------------------------------


def test_a_reader_repairs_nothing(sound: tuple[Path, Content]) -> None:
    """Only the writer may; what it would do a reader can say."""
    path, held = sound
    with DiskBackend(path, read_only=True, files=FailingFiles()) as backend:
        with pytest.raises(StorageError, match="open for reading only and cannot be repaired"):
            backend.check(repair=True)
        assert [] == backend.check(repair=True, dry_run=True)
        with pytest.raises(StorageError, match="opened with read_only=True"):
            backend.remove("k1", 500)
        backend.sync()
        assert set(held) == {record.key for record in backend.scan()}


def test_what_cannot_be_decoded_here_is_not_damaged(
    sound: tuple[Path, Content], tmp_path: Path
) -> None:
    """A package is missing: a repair must not take the value away."""
    path, held = sound

    def missing(record: Record, frame: memoryview) -> None:
        raise UnsupportedTypeError("no package of this name")

    shutil.copytree(path, tmp_path / "s")
    with DiskBackend(tmp_path / "s", verify=missing, files=FailingFiles()) as backend:
        problems = backend.check(repair=True)
        assert set(held) == {problem.key for problem in problems}
        assert not any(problem.repaired for problem in problems)
        assert {"it cannot be read here: no package of this name"} == {
            problem.what for problem in problems
        }
        assert set(held) == {record.key for record in backend.scan()}


def test_what_is_set_aside_is_copied_where_no_link_can_be_made(
    sound: tuple[Path, Content], tmp_path: Path
) -> None:
    """Not every file system has hard links."""
    path, _ = sound
    name = next(name for name in files_of(path) if name.suffix == ".val")
    damaged = broken(path, name, tmp_path / "s")
    flip(damaged, 100)
    data, files = damaged.read_bytes(), FailingFiles(kinds=frozenset(("link",)))
    with DiskBackend(tmp_path / "s", verify=verify, files=files) as backend:
        files.arm(1)
        (problem,) = backend.check(repair=True)
        assert problem.repaired
    assert ["link"] == files.failed
    (kept,) = (tmp_path / "lost+found").rglob("*.val")
    assert data == kept.read_bytes()
