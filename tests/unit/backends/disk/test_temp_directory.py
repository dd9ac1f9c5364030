"""Temporary directories go with their process, a crash included."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from memories.backends.disk import new_temp_directory, sweep_temp_directories
from memories.errors import StorageError

CODE = """
import os, sys, pathlib
from memories.backends.disk.temp_directory import new_temp_directory
held = new_temp_directory(pathlib.Path(sys.argv[1]))
(held.path / "data").write_text("x")
print(held.path, flush=True)
"""


def started(base: Path, then: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CODE + then, str(base)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_it_is_private_and_goes_at_exit(tmp_path: Path) -> None:
    """Mode 0700, and nothing left after a plain interpreter exit, not even an empty directory."""
    base = tmp_path / "base"
    modes = "print([os.stat(path).st_mode & 0o777 for path in (held.path, held.path.parent)])"
    child = started(base, modes)
    output, _ = child.communicate()
    assert 0 == child.returncode
    assert str([0o700, 0o700]) == output.splitlines()[1]
    assert not base.exists()


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    """By the next start, and not while the process lives."""
    child = started(tmp_path / "base", '__import__("time").sleep(60)')
    assert child.stdout is not None
    path = Path(child.stdout.readline().strip())
    assert 0 == sweep_temp_directories(tmp_path / "base")
    assert (path / "data").exists()
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert (path / "data").exists()
    mine = new_temp_directory(tmp_path / "base")
    assert not path.exists()
    assert mine.path.exists()
    mine.remove()
    mine.remove()
    assert not mine.path.exists()


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    """Another user may have made /tmp/memories-UID first."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "base").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="link"):
        new_temp_directory(tmp_path / "base")


def test_a_place_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """At once, with what to do: a temporary directory may be missing, or a file in its place."""
    (tmp_path / "file").write_text("x")
    for base in (tmp_path / "missing" / "base", tmp_path / "file"):
        with pytest.raises(StorageError, match="TMPDIR"):
            new_temp_directory(base)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_leaves_it_alone(tmp_path: Path) -> None:
    """Its exit is not the owner's."""
    mine = new_temp_directory(tmp_path / "base")
    pid = os.fork()
    if pid == 0:
        mine.remove()
        os._exit(0)
    os.waitpid(pid, 0)
    assert mine.path.exists()
    mine.remove()


def test_coming_and_going_at_once(tmp_path: Path) -> None:
    """The last process removes the common directory, and no entering process loses its own."""
    failures: list[BaseException] = []

    def come_and_go() -> None:
        try:
            for _ in range(40):
                mine = new_temp_directory(tmp_path / "base")
                (mine.path / "data").write_text("x")
                mine.remove()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == failures
    new_temp_directory(tmp_path / "base").remove()
    assert not (tmp_path / "base").exists()


def test_a_directory_that_others_may_read_is_closed_to_them(tmp_path: Path) -> None:
    """It may be older than the rule that it is private."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base").chmod(0o755)
    mine = new_temp_directory(tmp_path / "base")
    assert 0o700 == (tmp_path / "base").stat().st_mode & 0o777
    mine.remove()
