"""Something else lies in the place of a file of ours: a FIFO, a link, a device, a directory.

A person who can write to the directory of a store could plant it. No call waits for it, reads where
it leads, or changes or removes a file that is not ours; what is raised is an error of this package.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import FrameType

import numpy as np
import pytest

from memories import MemoriesError, MemoryManager, StorageError
from memories.observe.analytics.telemetry_files import read_document, read_series
from memories.simulate.traces import Access, read_trace, write_trace

PRECIOUS = b"a file of another program\n" * 300
HANG_SECONDS = 60


@contextmanager
def without_hanging() -> Iterator[None]:
    """Fail if the block waits for something for ever: a signal interrupts the system call."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"it hangs in {frame}")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(HANG_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fifo(place: Path, foreign: Path) -> None:
    os.mkfifo(place)


def link(place: Path, foreign: Path) -> None:
    place.symlink_to(foreign)


def hard_link(place: Path, foreign: Path) -> None:
    os.link(foreign, place)


def endless(place: Path, foreign: Path) -> None:
    place.symlink_to("/dev/zero")


def device(place: Path, foreign: Path) -> None:
    try:
        os.mknod(place, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root can make a device")


def directory(place: Path, foreign: Path) -> None:
    place.mkdir()
    os.link(foreign, place / "foreign")


def listening(place: Path, foreign: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as one:
        here = Path.cwd()
        os.chdir(place.parent)  # The path of a socket must be short.
        try:
            one.bind(place.name)
        finally:
            os.chdir(here)


PLANTED: dict[str, Callable[[Path, Path], None]] = {
    made.__name__: made for made in (fifo, link, hard_link, endless, device, directory, listening)
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a closed store with files of every kind, which tests copy."""
    folder = tmp_path_factory.mktemp("whole")
    with opened(folder) as manager:
        manager.enable_analytics(0.05)
        for number in range(50):
            manager.store(f"small/{number}", f"value {number}", "cold")
        manager.store("large", np.arange(400_000), "cold")
        manager.store("archived", np.arange(2_000), "glacier")
        manager.check()
        manager.flush()
    with opened(folder) as manager:
        manager.store("later", "value", "cold")
    return folder


def opened(folder: Path, *, read_only: bool = False) -> MemoryManager:
    return MemoryManager(
        "1 MB", "1 MB", "20 MB", True,
        storage_path=folder / "store", glacier_url=str(folder / "bucket"),
        read_only=read_only, migration=False,
    )  # fmt: skip


def places(folder: Path) -> list[str]:
    """Return all files of the store, and those that SQLite and telemetry may make."""
    store = folder / "store"
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != "_now"]
    extra = [store / "archive" / f"glacier.sqlite-{end}" for end in ("wal", "shm", "journal")]
    extra += [store / f".telemetry.json.{os.getpid()}", store / "cold" / "FORMAT.tmp"]
    return sorted({str(path.relative_to(folder)) for path in (*found, *extra)})


def use(folder: Path, *, read_only: bool) -> None:
    """Do all that reads or changes files; our own errors are right."""
    with suppress(MemoriesError):
        manager = opened(folder, read_only=read_only)
        try:
            for key in ("small/7", "large", "archived", "later"):
                with suppress(MemoriesError, KeyError):
                    manager.retrieve(key)
            for call in (
                manager.check,
                manager.stats,
                lambda: manager.check(repair=True) if not read_only else None,
                lambda: manager.store("new", "value", "cold"),
                lambda: manager.store("new large", np.arange(400_000), "cold"),
                lambda: manager.store("new archived", "value", "glacier"),
                lambda: manager.enable_analytics(0.05),
                manager.telemetry,
            ):
                with suppress(MemoriesError):
                    call()
        finally:
            with suppress(MemoriesError):
                manager.cleanup()
    for read in (read_document, read_series):
        with suppress(MemoriesError):
            read(folder / "store")


@pytest.mark.parametrize("kind", PLANTED)
def test_no_file_of_a_store_is_waited_for_or_followed(
    kind: str, whole: Path, tmp_path: Path
) -> None:
    """In the place of each file of a store and an archive, when it is opened for writing."""
    foreign = tmp_path / "foreign"
    for number, place in enumerate(places(whole)):
        foreign.write_bytes(PRECIOUS)
        folder = tmp_path / f"copy-{number}"
        shutil.copytree(whole, folder)
        (folder / place).unlink(missing_ok=True)
        PLANTED[kind](folder / place, foreign)
        with without_hanging():
            use(folder, read_only=bool(number % 2))
        assert PRECIOUS == foreign.read_bytes(), place
        shutil.rmtree(folder)


@pytest.mark.torture
@pytest.mark.parametrize("kind", PLANTED)
def test_no_file_of_a_store_is_followed_by_writer_and_reader(
    kind: str, whole: Path, tmp_path: Path
) -> None:
    """The same, each as a writer and as a reader."""
    foreign = tmp_path / "foreign"
    for place in places(whole):
        for read_only in (True, False):
            foreign.write_bytes(PRECIOUS)
            folder = tmp_path / "copy"
            shutil.copytree(whole, folder)
            (folder / place).unlink(missing_ok=True)
            PLANTED[kind](folder / place, foreign)
            with without_hanging():
                use(folder, read_only=read_only)
            assert PRECIOUS == foreign.read_bytes(), place
            shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["log", "values", "index", "stores"])
def test_a_directory_that_is_a_link_is_refused(name: str, whole: Path, tmp_path: Path) -> None:
    """Files are removed by number there: those of another store would be."""
    mine, other = tmp_path / "mine", tmp_path / "other"
    shutil.copytree(whole, mine)
    shutil.copytree(whole, other)
    shutil.rmtree(mine / "store" / "cold" / name)
    (mine / "store" / "cold" / name).symlink_to(other / "store" / "cold" / name)
    held = sorted(path.name for path in (other / "store" / "cold" / name).iterdir())
    for read_only in (True, False):
        with pytest.raises(StorageError, match="is a link"):
            opened(mine, read_only=read_only)
    assert held == sorted(path.name for path in (other / "store" / "cold" / name).iterdir())


def test_the_path_of_a_whole_store_may_be_a_link(whole: Path, tmp_path: Path) -> None:
    """Users put a store on another disk so."""
    shutil.copytree(whole, tmp_path / "elsewhere")
    (tmp_path / "here").symlink_to(tmp_path / "elsewhere")
    with opened(tmp_path / "here") as manager:
        assert "value" == manager.retrieve("later")


def test_only_our_drafts_are_removed_when_a_store_is_opened(whole: Path, tmp_path: Path) -> None:
    """Files of other programs lie there by mistake, and are left alone."""
    shutil.copytree(whole, tmp_path / "copy")
    cold = tmp_path / "copy" / "store" / "cold"
    theirs = [cold / "notes.tmp", cold / "log" / "notes.tmp", cold / "values" / "1.val.tmp"]
    theirs += [cold / "values" / "x.val", cold / "index" / "readme.run", cold / "log" / "1.seg"]
    ours = [cold / "FORMAT.tmp", cold / "index" / "manifest.tmp", cold / "log" / "00000099.seg.tmp"]
    for path in (*theirs, *ours):
        path.write_bytes(b"draft")
    with opened(tmp_path / "copy") as manager:
        assert "value" == manager.retrieve("later")
    assert [path for path in theirs if path.exists()] == theirs
    assert [] == [path for path in ours if path.exists()]


def test_a_lock_that_is_shared_with_another_directory_is_replaced(
    whole: Path, tmp_path: Path
) -> None:
    """`cp -al` makes such a copy; each store has a lock of its own from then on."""
    shutil.copytree(whole, tmp_path / "a")
    shutil.copytree(whole, tmp_path / "b")
    locks = [tmp_path / name / "store" / "cold" / "LOCK" for name in ("a", "b")]
    locks[1].unlink()
    os.link(locks[0], locks[1])
    with opened(tmp_path / "b") as manager:
        assert 1 == locks[0].stat().st_nlink == locks[1].stat().st_nlink
        assert f"pid {os.getpid()}" in locks[1].read_text()
        assert "value" == manager.retrieve("later")
    with opened(tmp_path / "a"):
        assert [] == list((tmp_path / "a" / "store" / "cold").glob("*.tmp"))


def test_snapshots_and_traces_are_for_their_owner_only(whole: Path, tmp_path: Path) -> None:
    """Under any umask, also where they replace a file that other users could read."""
    shutil.copytree(whole, tmp_path / "copy")
    before = os.umask(0)
    try:
        with opened(tmp_path / "copy") as manager:
            for name in ("new", "replaced"):
                snapshot, trace = tmp_path / f"{name}.memories", tmp_path / f"{name}.jsonl"
                if name == "replaced":
                    for path in (snapshot, trace):
                        path.touch(0o644)
                manager.create_snapshot(snapshot)
                with manager.record_trace(trace):
                    manager.retrieve("later")
                for path in (snapshot, trace):
                    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
            write_trace(tmp_path / "made.npz", [Access(0.0, "key", 1)])
            assert 0o600 == stat.S_IMODE((tmp_path / "made.npz").stat().st_mode)
    finally:
        os.umask(before)


def test_parent_directories_keep_to_the_umask(tmp_path: Path) -> None:
    """Only the directory of the store itself is closed to others."""
    before = os.umask(0o027)
    try:
        with MemoryManager(
            "1 MB", "1 MB", "9 MB", storage_path=tmp_path / "a" / "b" / "store"
        ) as manager:
            manager.store("key", "value", "cold")
    finally:
        os.umask(before)
    assert 0o750 == stat.S_IMODE((tmp_path / "a").stat().st_mode)
    assert 0o750 == stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode)
    assert 0o700 == stat.S_IMODE((tmp_path / "a" / "b" / "store" / "cold").stat().st_mode)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a link of another user")
def test_output_does_not_follow_the_link_of_another_user(whole: Path, tmp_path: Path) -> None:
    """In /tmp, a link could lead a snapshot or a trace onto any file of its writer."""
    shutil.copytree(whole, tmp_path / "copy")
    foreign = tmp_path / "foreign"
    foreign.write_bytes(PRECIOUS)
    with opened(tmp_path / "copy") as manager:
        for name, write in (
            ("out.memories", manager.create_snapshot),
            ("out.jsonl", lambda path: manager.record_trace(path).stop()),
        ):
            place = tmp_path / name
            place.symlink_to(foreign)
            os.lchown(place, 12345, 12345)
            with pytest.raises(OSError, match="link of another user"):
                write(place)
            place.unlink()
            if name == "out.jsonl":
                os.link(foreign, place)
                with pytest.raises(OSError, match="second name"):
                    write(place)
            else:
                place.symlink_to(tmp_path / "mine")  # A link of one's own is followed.
                write(place)
                assert (tmp_path / "mine").exists()
    assert PRECIOUS == foreign.read_bytes()


def test_a_trace_that_is_a_fifo_is_refused(tmp_path: Path) -> None:
    """It would wait for a writer for ever."""
    for name in ("trace.jsonl", "trace.npz"):
        os.mkfifo(tmp_path / name)
        with without_hanging(), pytest.raises(OSError, match="not a regular file"):
            read_trace(tmp_path / name)
