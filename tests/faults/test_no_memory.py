"""A machine without memory for a thread: no caller waits for it, and it is started later."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

PROGRAM = """
    import faulthandler, os, resource, sys, threading, time
    import numcodecs.blosc  # Loaded before: what is to fail is the store.
    from memories import KeyNotFoundError, MemoriesError, MemoryManager

    faulthandler.dump_traceback_later(50, exit=True)
    path, slack = sys.argv[1], int(sys.argv[2])
    manager = MemoryManager("2MB", "2MB", "60MB", storage_path=path)
    held, before = {}, None

    def attempt(call):
        try:
            call()
        except KeyNotFoundError:
            return False
        except (MemoriesError, MemoryError):
            return False
        return True

    used = int(open("/proc/self/statm").read().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (used + slack, -1))
    for number in range(40):
        key, value = f"k{number}", os.urandom(3000)
        if attempt(lambda: manager.store(key, value, "cold")):
            held[key] = value
        if number % 3 == 0 and attempt(lambda: manager.delete(key)):
            held.pop(key, None)
        attempt(lambda: manager.retrieve(key))
        attempt(lambda: manager.prefetch([key]))
    attempt(manager.flush)
    names = {one.name for one in threading.enumerate()}
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))

    manager.store("after", b"value", "cold")
    manager.delete("after")
    wanted = {"memories-sync", "memories-upkeep", "memories-unlink"}
    end = time.monotonic() + 40
    while not wanted <= {one.name for one in threading.enumerate()}:
        assert time.monotonic() < end, "the threads were not started later"
        time.sleep(0.01)
    assert held == {key: manager.retrieve(key) for key in manager}
    manager.flush()
    while problems := manager.check():  # A failure is shown until the next turn of its thread.
        assert time.monotonic() < end, problems
        time.sleep(0.01)
    manager.cleanup()
    with MemoryManager("2MB", "2MB", "60MB", storage_path=path) as again:
        assert held == {key: again.retrieve(key) for key in again}
    print("started" if wanted <= names else "not started", len(held))
"""


@pytest.mark.parametrize("slack", [300_000, 4_000_000])
def test_a_store_that_cannot_start_its_threads_goes_on(tmp_path: Path, slack: int) -> None:
    """Its sync thread died at birth, and the next delete waited for ever."""
    command = [sys.executable, "-c", dedent(PROGRAM), str(tmp_path / "store"), str(slack)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stdout.startswith("not started"), done.stdout + done.stderr
