"""Calls that only some systems have: what they do, and what is done where they are missing."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from memories.foundation import system


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide /proc."""
    monkeypatch.setattr(system, "PROC", tmp_path / "proc")


def opened(path: Path) -> int:
    """Return a descriptor of a new file."""
    return os.open(path, os.O_RDWR | os.O_CREAT)


def test_macos_is_asked_to_empty_the_cache_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`fsync` alone would leave the bytes there; a file system without the call gets `fsync`."""
    asked: list[Any] = []
    answer: list[OSError] = []

    def call(descriptor: int, command: int) -> int:
        asked.append(command)
        if answer:
            raise answer[0]
        return 0

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", call)
    monkeypatch.setattr(os, "fsync", lambda descriptor: asked.append("fsync"))
    system.sync(0)
    system.sync_data(0)
    assert [51, 51] == asked
    answer.append(OSError(errno.ENOTSUP, "not here"))
    system.sync(0)
    assert [51, "fsync"] == asked[2:]
    answer[0] = OSError(errno.EIO, "a bad disk")
    with pytest.raises(OSError, match="bad disk"):
        system.sync(0)


def test_a_file_without_a_name_gets_one(tmp_path: Path) -> None:
    """And replaces nothing."""
    descriptor = system.open_unnamed(tmp_path)
    if descriptor is None:
        pytest.skip("this file system has none")
    os.write(descriptor, b"x")
    directory = os.open(tmp_path, os.O_RDONLY)
    assert [] == list(tmp_path.iterdir())
    system.name_file(descriptor, "a", directory)
    assert b"x" == (tmp_path / "a").read_bytes()
    with pytest.raises(FileExistsError):
        system.name_file(descriptor, "a", directory)
    os.close(descriptor)
    os.close(directory)


def test_without_proc(nowhere: None, tmp_path: Path) -> None:
    """There are no files without a name, no short paths, and the start has no name."""
    assert system.open_unnamed(tmp_path) is None
    assert system.path_below(0, "a") is None
    assert "" == system.boot_id()


def test_a_file_takes_its_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By zeros where the system has no call for it; and the other calls without a call."""
    first, second = opened(tmp_path / "a"), opened(tmp_path / "b")
    system.allocate(first, 10_000)
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    system.allocate(second, 2_500_000)
    assert (10_000, 2_500_000) == (os.fstat(first).st_size, os.fstat(second).st_size)
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    system.advise_sequential(second)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert system.usable_processors() == os.cpu_count()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not system.clone_file(first, second)
    os.close(first)
    os.close(second)


def test_the_user_at_the_other_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel says; None where it does not, and as macOS says it."""
    ours, other = socket.socketpair(socket.AF_UNIX)
    with ours, other:
        if hasattr(socket, "SO_PEERCRED"):
            assert os.geteuid() == system.peer_user(ours)
        monkeypatch.delattr(socket, "SO_PEERCRED", raising=False)
        assert system.peer_user(ours) is None
        monkeypatch.setattr(sys, "platform", "darwin")

        class Mac:
            def getsockopt(self, level: int, option: int, size: int) -> bytes:
                assert (0, 1, 76) == (level, option, size)
                return bytes([0, 0, 0, 0, 245, 1, 0, 0]) + bytes(68)

        assert 501 == system.peer_user(Mac())  # type: ignore[arg-type]


@pytest.mark.skipif(system.PROC != Path("/proc"), reason="what only Linux has is hidden")
def test_a_function_of_the_c_library() -> None:
    """None if there is no such function."""
    assert system.c_function("there_is_no_such_function") is None
    assert system.c_function("getpid") is not None
