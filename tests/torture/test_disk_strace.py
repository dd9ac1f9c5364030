"""Every system call of a scripted run fails once, for real: strace makes the kernel refuse it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memories.backends.disk import DiskBackend

CHILD = Path(__file__).with_name("disk_script_child.py")
FAULTS = [
    ("fdatasync", "EIO"), ("fsync", "EIO"), ("write", "ENOSPC"), ("writev", "EDQUOT"),
    ("write", "EFBIG"), ("rename", "EROFS"), ("unlink", "EACCES"), ("openat", "EMFILE"),
    ("pread64", "EIO"), ("mmap", "ENOMEM"), ("mkdir", "EACCES"),
]  # fmt: skip

pytestmark = [
    pytest.mark.torture,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(CHILD)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


class Tracer:
    """strace on a running process, until `stop`."""

    def __init__(self, pid: int, output: Path, *options: str) -> None:
        self._output = output
        command = ["strace", "-f", "-p", str(pid), "-qq", "-o", str(output), *options]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE)
        while f"TracerPid:\t{self._process.pid}" not in Path(f"/proc/{pid}/status").read_text():
            if self._process.poll() is not None:
                pytest.skip(f"strace cannot attach: {self._process.communicate()[1].decode()}")
            time.sleep(0.01)

    def stop(self) -> bool:
        """Detach from the process; return whether the fault came."""
        self._process.send_signal(signal.SIGINT)
        self._process.communicate()
        return "(INJECTED)" in self._output.read_text()


def ask(child: subprocess.Popen[str], path: Path) -> dict[str, Any]:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(f"{path}\n")
    child.stdin.flush()
    line = child.stdout.readline()
    assert line, child.communicate()[1]
    answer: dict[str, Any] = json.loads(line)
    return answer


@pytest.mark.parametrize(("call", "code"), FAULTS)
def test_any_call_may_fail(
    tmp_path: Path, child: subprocess.Popen[str], call: str, code: str
) -> None:
    """A step that raised changed nothing, one that returned holds, and a reopening agrees."""
    whole = ask(child, tmp_path / "whole")
    assert 24 == len([step for step in whole["steps"] if not step[2]])
    came = 0
    for at in range(1, 1000):
        path = tmp_path / f"{at}"
        options = (f"--trace={call}", f"--inject={call}:error={code}:when={at}")
        tracer = Tracer(child.pid, tmp_path / "trace", *options)
        answer = ask(child, path)
        if not tracer.stop():
            break
        came += 1
        judge(path, answer, at)
        shutil.rmtree(path, ignore_errors=True)
    assert came > 2, "the fault never came"


def judge(path: Path, answer: dict[str, Any], at: int) -> None:
    held: dict[str, int] = {}
    for key, version, error in answer["steps"]:
        if error:
            continue
        held.pop(key, None)
        if version > 0:
            held[key] = version
    assert held == answer["found"], (at, answer)
    with DiskBackend(path) as again:
        found = {record.key: record.version for record in again.scan()}
        assert held == found, (at, answer)
        assert [] == again.check(), (at, answer)


@pytest.mark.parametrize("call", ["fdatasync", "write", "rename", "unlink", "openat"])
def test_killed_at_any_call(tmp_path: Path, call: str) -> None:
    """Opening finds a prefix of the script, whole."""
    killed = 0
    for at in (*range(1, 12), *range(12, 200, 8)):
        process = subprocess.Popen(
            [sys.executable, str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        ask(process, tmp_path / f"{at}.before")  # Nothing is imported any more from here on.
        path = tmp_path / f"{at}"
        inject = (f"--trace={call}", f"--inject={call}:signal=KILL:when={at}")
        tracer = Tracer(process.pid, tmp_path / "trace", *inject)
        process.communicate(f"{path}\n")
        tracer.stop()
        if process.returncode == 0:
            break
        killed += 1
        assert -signal.SIGKILL == process.returncode
        with DiskBackend(path) as again:
            found = {record.key: record.version for record in again.scan()}
            assert found in [prefix(last) for last in range(25)]
            assert [] == again.check()
    assert killed > 2


def prefix(last: int) -> dict[str, int]:
    held: dict[str, int] = {}
    for version in range(1, last + 1):
        held.pop(f"k{version % 4}", None)
        if version % 7:
            held[f"k{version % 4}"] = version
    return held


STORE = """
import faulthandler, sys, threading, time
import numcodecs.blosc
from memories import MemoriesError, MemoryManager

faulthandler.dump_traceback_later(100, exit=True)
manager = MemoryManager("2MB", "2MB", "60MB", storage_path=sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
done = 0
for number in range(60):
    key = f"k{number % 5}"
    for call in (
        lambda: manager.store(key, bytes(3000), "cold"),
        lambda: manager.store("large", bytes(3_000_000), "cold"),
        lambda: manager.prefetch([key]),
        lambda: manager.retrieve("large"),
        lambda: manager.delete(key),
        lambda: manager.delete("large"),
    ):
        try:
            call()
            done += 1
        except (MemoriesError, MemoryError):
            pass
print("done", done, flush=True)
sys.stdin.readline()
manager.store("after", b"value", "cold")
manager.flush()
time.sleep(2)
names = [one.name for one in threading.enumerate()]
print(*sorted(name for name in names if name in ("memories-sync", "memories-unlink")), flush=True)
assert [] == manager.check()
manager.cleanup()
"""


def test_without_any_new_mapping_no_thread_waits_for_ever(tmp_path: Path) -> None:
    """No thread can be started, or it dies at birth; afterwards all of them run."""
    with subprocess.Popen(
        [sys.executable, "-c", STORE, str(tmp_path / "store")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as store:  # fmt: skip
        assert store.stdin is not None
        assert store.stdout is not None
        assert "open\n" == store.stdout.readline()
        tracer = Tracer(store.pid, tmp_path / "trace", "--trace=mmap", "--inject=mmap:error=ENOMEM")
        store.stdin.write("\n")
        store.stdin.flush()
        assert store.stdout.readline().startswith("done")
        assert tracer.stop(), "the fault never came"
        rest, _ = store.communicate("\n", timeout=60)
    assert ("memories-sync memories-unlink\n", 0) == (rest, store.returncode)
