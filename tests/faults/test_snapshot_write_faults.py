"""A snapshot that cannot be finished leaves the old file as it was, and nothing beside it."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.snapshot_files import item

from memories.errors import MemoriesError, StorageError
from memories.snapshot import Item, atomicfile, create, open_snapshot

BODY = bytes(range(256)) * 8_000


def write(path: Path, version: int = 1, count: int = 4) -> None:
    """Write a snapshot whose values say which one it is."""
    body = version.to_bytes(8, "little") + BODY
    create(path, (item(f"k{n}", body, version) for n in range(count)), sequence=version)


def version_in(path: Path) -> int:
    """Return which snapshot lies at `path`, having verified all of it."""
    with open_snapshot(path) as snapshot:
        snapshot.verify()
        versions = {
            int.from_bytes(snapshot.frame(at, length)[256:264], "little")
            for _, at, length in snapshot.items()
        }
        assert {snapshot.sequence} == versions
        return snapshot.sequence


CALLS = ["open", "pwrite", "fsync", "link", "rename"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_any_failing_call_leaves_the_old_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    """Each system call that a snapshot makes, failing at its first time, its second and so on."""
    write(tmp_path / "s", 1)
    real = getattr(os, call)
    for fail_at in range(1, 200):
        count = 0

        def failing(*args: Any, _at: int = fail_at, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == _at:
                raise OSError(code, os.strerror(code))
            return real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            try:
                write(tmp_path / "s", 1 + fail_at)
            except StorageError as error:
                assert str(tmp_path / "s") in str(error)
                failed = True
            else:
                failed = False
        assert [tmp_path / "s"] == list(tmp_path.iterdir())
        found = version_in(tmp_path / "s")
        if not failed:
            assert 1 + fail_at == found
            break
        # Only where the final sync of the directory fails is the new one there already.
        assert found in (1, fail_at, 1 + fail_at)
    assert 1 < fail_at < 199


@pytest.mark.parametrize(("replacing", "name"), [(False, ["link"]), (True, ["link", "rename"])])
def test_bytes_are_durable_before_their_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replacing: bool, name: list[str]
) -> None:
    """A power cut after the rename must not find a name without its bytes."""
    if replacing:
        write(tmp_path / "s", 1)
    calls: list[str] = []

    def spy(call: str) -> Callable[..., Any]:
        real = getattr(os, call)

        def spied(*args: Any, **kwargs: Any) -> Any:
            result = real(*args, **kwargs)
            calls.append(call)
            return result

        return spied

    for call in ("pwrite", "fsync", "link", "rename"):
        monkeypatch.setattr(os, call, spy(call))
    write(tmp_path / "s", 2)
    assert ["pwrite", "fsync", *name, "fsync"] == [
        call for n, call in enumerate(calls) if n == 0 or calls[n - 1] != call
    ]


def test_an_interrupted_snapshot_leaves_no_trace(tmp_path: Path) -> None:
    """Ctrl-C arrives between any two items."""

    def items() -> Iterator[Item]:
        yield item("a", BODY)
        raise KeyboardInterrupt

    write(tmp_path / "s", 7)
    for path in (tmp_path / "s", tmp_path / "new"):
        with pytest.raises(KeyboardInterrupt):
            create(path, items(), sequence=8)
    assert [tmp_path / "s"] == list(tmp_path.iterdir())
    assert 7 == version_in(tmp_path / "s")


def test_a_real_limit_on_file_size_is_an_error_of_ours(tmp_path: Path) -> None:
    """The same as a full disk, by the system itself."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, old[1]))
    try:
        with pytest.raises(StorageError, match="too large"):
            write(tmp_path / "s")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert [] == list(tmp_path.iterdir())
    write(tmp_path / "s")


@pytest.mark.parametrize(
    "prepare",
    [
        lambda path: path.mkdir(),
        lambda path: os.mkfifo(path),
        lambda path: path.symlink_to("/dev/null"),
    ],
)
def test_only_a_regular_file_is_ever_replaced(
    tmp_path: Path, prepare: Callable[[Path], None]
) -> None:
    """`create_snapshot("/dev/sda")` must not do what it says."""
    prepare(tmp_path / "s")
    with pytest.raises(StorageError, match="regular file"):
        write(tmp_path / "s")


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The most common mistake of all."""
    with pytest.raises(StorageError, match="absent"):
        write(tmp_path / "absent" / "s")


def without_nameless_files(patch: pytest.MonkeyPatch) -> None:
    """Make the file system one that knows no O_TMPFILE, as NFS and FUSE do not."""
    real = os.open

    def refusing(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return real(path, flags, *args, **kwargs)

    patch.setattr(os, "open", refusing)


def test_file_systems_without_nameless_files_work_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a killed writer leaves a file, which the next one removes; a living one's stays."""
    without_nameless_files(monkeypatch)
    write(tmp_path / "s", 1)
    with pytest.raises(StorageError), monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(errno.EIO, "bad")))
        write(tmp_path / "s", 2)
    assert [tmp_path / "s"] == list(tmp_path.iterdir())
    with atomicfile.AtomicFile(tmp_path / "s") as alive:
        (tmp_path / ".s.0badcafe.partial").write_bytes(b"left by a killed one")
        write(tmp_path / "s", 3)
        assert 2 == len(list(tmp_path.iterdir()))
        alive.write([b"x"])
        alive.commit()
    assert b"x" == (tmp_path / "s").read_bytes()


def test_writers_of_one_path_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Whichever comes last wins, and every one of them is whole."""
    errors: list[BaseException] = []

    def work(version: int) -> None:
        try:
            for _ in range(10):
                write(tmp_path / "s", version, count=2)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == errors
    assert version_in(tmp_path / "s") in range(1, 5)
    assert [tmp_path / "s"] == list(tmp_path.iterdir())


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from tests.faults.test_snapshot_write_faults import write
version = 1
print(flush=True)
while True:
    version += 1
    write(Path(sys.argv[1]), version)
    print(version, flush=True)
"""


def kill_writers(directory: Path, runs: int, seed: int) -> None:
    """Kill a process that writes snapshots over and over, at a random moment, `runs` times."""
    random_ = random.Random(seed)
    path = directory / "s"
    root = Path(__file__).parents[2]
    for _ in range(runs):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path), str(root)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(random_.uniform(0, 0.15))
        child.kill()
        acknowledged = [int(line) for line in child.stdout.read().split()]
        child.wait()
        child.stdout.close()
        if acknowledged:
            assert version_in(path) >= acknowledged[-1]
        if path.exists():
            version_in(path)
        leftovers = {found.name for found in directory.iterdir()} - {"s"}
        # Killed between naming and renaming: complete, and removed by the next writer.
        assert len(leftovers) <= 1
    write(path, 10_000)
    assert [path] == list(directory.iterdir())


def test_a_killed_writer_leaves_one_whole_snapshot(tmp_path: Path) -> None:
    """kill -9 at any moment: what was acknowledged is there, and nothing half-written."""
    kill_writers(tmp_path, runs=8, seed=1)


@pytest.mark.torture
@pytest.mark.timeout(1200)
def test_a_killed_writer_leaves_one_whole_snapshot_every_time(tmp_path: Path) -> None:
    """The same, two hundred times."""
    kill_writers(tmp_path, runs=200, seed=2)


def test_errors_of_the_frames_themselves_pass_through(tmp_path: Path) -> None:
    """A value that cannot be read is that value's error, not the disk's."""

    class Gone(MemoriesError, OSError):
        pass

    def gone() -> list[memoryview]:
        raise Gone("the bucket is away")

    with pytest.raises(Gone):
        create(tmp_path / "s", [Item(item("k", b"").record, gone)], sequence=1)
    assert [] == list(tmp_path.iterdir())
