"""Promise 6, the normal end: a named store keeps what is in RAM, and says what it cannot keep.

Every program here is a process of its own, for there is no other interpreter's exit.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.buckets import seaweed
from tests.support.buckets.fixtures import s3, s3_proxy, s3_url  # noqa: F401
from tests.support.buckets.proxy import Fault, MisbehavingProxy

from memories import InvalidOptionError, MemoryManager

START = """
import os, signal, sys, time
import numpy as np
from memories import MemoryManager
manager = MemoryManager(1, 1, 1, storage_path=sys.argv[1], migration=False)
manager.store("cold", 0, "cold")
manager.store("a", 1, "hot")
manager["b"] = np.arange(300_000)
"""
QUIET = (0, "", "")


def run(script: str, *arguments: object, flags: tuple[str, ...] = ()) -> Any:
    """Run a program and return its exit status, and what it wrote."""
    command = [sys.executable, *flags, "-c", script, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return ended.returncode, ended.stdout, ended.stderr


def kept(store: Path) -> list[str]:
    """Return the keys that a store holds."""
    with MemoryManager(1, 1, 1, storage_path=store, migration=False) as manager:
        return list(manager)


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("1 / 0", 1),
        ("raise KeyboardInterrupt", None),
        ("signal.signal(signal.SIGTERM, lambda *_: sys.exit(4)); signal.raise_signal(15)", 4),
        ("del manager", 0),
        ("manager.me = manager; del manager", 0),
        ("import atexit; atexit.register(manager.store, 'late', 1)", 0),
    ],
)
def test_a_normal_end_keeps_what_is_in_ram(tmp_path: Path, end: str, status: int | None) -> None:
    """However a program comes to its end by itself, or the manager to its own before that."""
    found, out, err = run(START + end, tmp_path)
    assert ("", status) == (out, found if status is not None else None)
    assert "memories" not in err
    assert {"a", "b", "cold"} <= set(kept(tmp_path))


@pytest.mark.parametrize(
    "end",
    ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)", "signal.raise_signal(signal.SIGTERM)"],
)
def test_an_end_without_cleanup_keeps_what_is_durable(tmp_path: Path, end: str) -> None:
    """What never reaches the interpreter's exit is a kill: RAM is gone, and nothing is older."""
    _, out, err = run(START + 'manager.store("cold", 1, "cold")\n' + end, tmp_path)
    assert ("", "") == (out, err)
    assert ["cold"] == kept(tmp_path)


def test_a_manager_that_a_function_forgets_is_kept(tmp_path: Path) -> None:
    """Most are local variables: they are garbage long before the interpreter ends."""
    script = """
import sys
from memories import MemoryManager
def main():
    manager = MemoryManager(1, 1, 1, storage_path=sys.argv[1])
    manager["a"] = 1
main()
"""
    assert QUIET == run(script, tmp_path)
    assert ["a"] == kept(tmp_path)


def test_a_store_that_was_forgotten_opens_again_at_once(tmp_path: Path) -> None:
    """A function that leaves its manager to the collector may be called twice."""
    script = """
import sys
from memories import MemoryManager
def main(number):
    manager = MemoryManager(1, 1, 1, storage_path=sys.argv[1])
    assert [f"k{one}" for one in range(number)] == list(manager), list(manager)
    manager[f"k{number}"] = bytes(3_000_000)
for number in range(5):
    main(number)
"""
    assert QUIET == run(script, tmp_path)
    assert 5 == len(kept(tmp_path))


def test_a_missing_cleanup_is_reported_to_listeners(tmp_path: Path) -> None:
    """One warning for each manager with a name, at the exit or when it becomes garbage."""
    flags = ("-W", "always::ResourceWarning")
    for number, end in enumerate(("", "del manager")):
        _, _, err = run(START + end, tmp_path / str(number), flags=flags)
        assert 1 == err.count("ResourceWarning: the store in "), err
        assert "call cleanup()" in err
    quiet = START.replace("storage_path=sys.argv[1], ", "")
    assert QUIET == run(quiet, tmp_path, flags=flags)
    assert QUIET == run(START + "manager.cleanup()", tmp_path / "closed", flags=flags)
    assert QUIET == run(START + "manager.cleanup(flush=False)", tmp_path / "closed", flags=flags)


def test_nothing_is_written_where_that_was_not_wanted(tmp_path: Path) -> None:
    """`exit_flush_seconds=0` is how it was: an exit without `cleanup()` is like a kill."""
    script = START.replace("migration=False", "migration=False, exit_flush_seconds=0")
    assert QUIET == run(script, tmp_path)
    assert ["cold"] == kept(tmp_path)
    for wrong in (-1, float("inf"), float("nan"), "30", True, None):
        with pytest.raises(InvalidOptionError, match="exit_flush_seconds"):
            MemoryManager(exit_flush_seconds=wrong)  # type: ignore[arg-type]


SLOW = """
from memories.backends.disk.files import Files
def slowly(write):
    def slow(self, descriptor, data):
        time.sleep(float(sys.argv[2]))
        return write(self, descriptor, data)
    return slow
Files.write, Files.writev = slowly(Files.write), slowly(Files.writev)
for number in range(20):
    manager[f"n{number}"] = np.arange(300_000)
"""


@pytest.mark.parametrize("pause", [0.2, 60])
def test_what_a_slow_disk_cannot_take_in_time_is_named(tmp_path: Path, pause: float) -> None:
    """In one line, within its time: also when the very first write never returns."""
    script = START.replace("migration=False", "migration=False, exit_flush_seconds=1")
    began = time.monotonic()
    status, out, err = run(script + SLOW, tmp_path, pause)
    assert (0, "") == (status, out)
    assert time.monotonic() - began < 45
    assert 1 == err.count("were only in RAM and are lost"), err
    assert "'n1'" in err or "'n19'" in err or "more" in err
    here = kept(tmp_path)
    assert "cold" in here
    assert len(here) < 22


def test_what_is_stored_during_the_end_is_named(tmp_path: Path) -> None:
    """A thread that never stops storing cannot be kept up with; what was there before is kept."""
    forever = """
import threading
begun = threading.Event()
def store():
    for number in range(10**9):
        manager[f"late {number}"] = number
        begun.set()
        time.sleep(1e-4)  # So that the other thread has its turns, on a busy machine, too.
threading.Thread(target=store, daemon=True).start()
begun.wait()
"""
    status, out, err = run(START + forever, tmp_path)
    lines = [line for line in err.splitlines() if line.startswith("memories: ")]
    assert (0, "") == (status, out)
    assert all("were stored while it was ending" in line for line in lines)
    assert len(lines) <= 1
    assert {"a", "b", "cold", "late 0"} <= set(kept(tmp_path))


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    """A full disk loses nothing silently, and what fits is there."""
    script = """
import sys, numpy as np
from memories import MemoryManager
manager = MemoryManager("100 MB", "100 MB", "20 MB", storage_path=sys.argv[1], migration=False)
manager["small"] = 1
manager["large"] = np.random.default_rng(1).random(4_000_000)
manager["last"] = 2
"""
    status, out, err = run(script, tmp_path)
    assert (0, "", 1) == (status, out, err.count("\n")), err
    assert err.startswith("memories: 1 value of the store in ")
    assert "'large'" in err
    assert ["last", "small"] == kept(tmp_path)


@pytest.mark.server
def test_a_bucket_that_hangs_does_not_keep_the_interpreter(
    s3: seaweed.SeaweedServer,  # noqa: F811
    s3_proxy: MisbehavingProxy,  # noqa: F811
    s3_url: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    """At most ten seconds, one line, and what was archived is there when it answers again."""
    script = """
import sys, time
from memories import MemoryManager
options = eval(sys.argv[3])
manager = MemoryManager(
    1, 1, 1, True, storage_path=sys.argv[1], glacier_url=sys.argv[2], storage_options=options
)
manager.store("archived", 1, "glacier")
manager["a"] = 1
print("go", flush=True)
sys.stdin.readline()
"""
    options = s3.storage_options(s3_proxy.endpoint)
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "s"), s3_url, repr(options)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert "go\n" == child.stdout.readline()
    s3_proxy.fault = lambda request: Fault(hang=True)
    began = time.monotonic()
    _, err = child.communicate("\n", timeout=60)
    assert time.monotonic() - began < 30  # Ten, and what a busy machine takes for the rest.
    assert (0, 1) == (child.returncode, err.count("\n")), err
    assert "waiting for the archive" in err
    with MemoryManager(
        1, 1, 1, True, storage_path=tmp_path / "s", glacier_url=s3_url,
        storage_options=s3.storage_options(),
    ) as manager:  # fmt: skip
        assert (1, 1) == (manager["archived"], manager["a"])


def test_a_forgotten_manager_whose_directory_is_gone_ends_in_one_line(tmp_path: Path) -> None:
    """No traceback from a thread that the user does not know of."""
    # At once, for a sync may be writing there.
    script = """
import gc, os, sys, threading, warnings
from memories import MemoryManager
manager = MemoryManager(1, 1, 1, storage_path=sys.argv[1])
manager["a"] = 1
manager.store("b", 2, "cold")
os.rename(sys.argv[1], sys.argv[1] + "-gone")
ends = [one for one in threading.enumerate() if one.name == "memories-finalizer"]
del manager
gc.collect()
for end in ends:
    end.join()
print(len(ends))
"""
    status, out, err = run(script, tmp_path / "store", flags=("-W", "ignore"))
    assert (0, "1\n") == (status, out)
    assert "Traceback" not in err
    assert 1 >= err.count("\n"), err


def test_a_forked_child_that_exits_writes_nothing(tmp_path: Path) -> None:
    """The store belongs to the parent, which goes on and keeps its values."""
    script = (
        START
        + """
pid = os.fork()
if pid == 0:
    sys.exit(5)
_, status = os.waitpid(pid, 0)
manager["c"] = os.waitstatus_to_exitcode(status)
"""
    )
    status, out, err = run(script, tmp_path, flags=("-W", "ignore"))
    assert (0, "", "") == (status, out, err)
    assert ["a", "b", "c", "cold"] == kept(tmp_path)


CACHED = """
import os, signal, sys, time
from memories import MemoryManager
manager = MemoryManager(1, 1, 1, storage_path=sys.argv[1])

@manager.cache
def slow(x):
    print("computed", x)
    return [x] * 1000

def durable():
    return len(list(manager._hierarchy.catalog.journal.scan()))

for number in range(3):
    assert [number] * 1000 == slow(number)
"""


def test_what_was_cached_is_there_in_the_next_run(tmp_path: Path) -> None:
    """Once this was lost, against the how-tos, unless the user called `cleanup()`."""
    script = tmp_path / "script.py"
    script.write_text(CACHED)
    for computed in ("computed 0\ncomputed 1\ncomputed 2\n", ""):
        command = [sys.executable, str(script), str(tmp_path / "store")]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (0, computed, "") == (ended.returncode, ended.stdout, ended.stderr)


def test_what_was_cached_is_durable_soon(tmp_path: Path) -> None:
    """A copy is written behind the caller's back, so that a kill costs the latest results only."""
    script = tmp_path / "script.py"
    wait = "while durable() < 3: time.sleep(0.01)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    script.write_text(CACHED.replace('print("computed", x)', "os.write(1, b'computed ')") + wait)
    for computed in ("computed computed computed ", ""):
        command = [sys.executable, str(script), str(tmp_path / "store")]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (-9, computed, "") == (ended.returncode, ended.stdout, ended.stderr)


def test_results_that_find_no_room_on_the_disk_cost_nothing(tmp_path: Path) -> None:
    """They are kept in RAM as before, quietly, and nothing that must stay leaves for them."""
    with MemoryManager("50 MB", "50 MB", "2 MB", storage_path=tmp_path) as manager:
        manager.store("kept", os.urandom(600_000), "cold")
        computed = []

        @manager.cache
        def large(number: int) -> bytes:
            computed.append(number)
            return os.urandom(700_000)

        first = [large(number) for number in range(8)]
        assert first == [large(number) for number in range(8)]
        assert list(range(8)) == computed
        assert "cold" == manager.get_tier("kept")
