"""File locks: acquired by one process after another, with a limit to each wait."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from memories.backends.bucket.directory import DirectoryStore
from memories.errors import BusyError, StorageError
from memories.foundation import fork_lock
from memories.foundation.fork_lock import lock_file

HOLDER = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(fd, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of a directory, and that was stopped with it."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    assert "held\n" == holder.stdout.readline()
    holder.send_signal(signal.SIGSTOP)
    yield holder
    holder.kill()
    holder.communicate()


def test_a_lock_is_taken_as_soon_as_its_holder_ends(
    tmp_path: Path, stopped: subprocess.Popen[str]
) -> None:
    """Two writers of one directory take turns."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    stopped.kill()
    lock_file(descriptor, tmp_path)
    with pytest.raises(BlockingIOError):
        fcntl.flock(os.open(tmp_path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


def test_a_wait_for_a_stopped_process_ends(
    tmp_path: Path, stopped: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One Ctrl-Z elsewhere held up every write into the archive."""
    monkeypatch.setattr(fork_lock, "FILE_SECONDS", 0.1)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(BusyError, match="stopped"):
        lock_file(descriptor, tmp_path)
    os.close(descriptor)
    with pytest.raises(StorageError, match="stopped"):
        DirectoryStore(tmp_path).put_if("name", b"data", None)
