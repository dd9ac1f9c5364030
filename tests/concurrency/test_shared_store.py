"""One store for several processes that write: nothing acknowledged is lost, nothing old is read."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.forking import in_child
from tests.support.waiting import until

from memories import (
    ClosedError,
    InvalidOptionError,
    KeyNotFoundError,
    MemoryManager,
    SharedMemoryManager,
    StoreLockedError,
    UnavailableError,
    UnsupportedTypeError,
)
from memories.sharing.messages import Channel

REPOSITORY = Path(__file__).parents[2]
SIZES: dict[str, Any] = {
    "hot_memory_size": "20MB", "warm_memory_size": "20MB", "cold_memory_size": "500MB",
}  # fmt: skip


@pytest.fixture
def first(tmp_path: Path) -> Iterator[SharedMemoryManager]:
    """Return a manager that became the writer."""
    with SharedMemoryManager(tmp_path / "store", **SIZES) as manager:
        assert manager.is_writer
        yield manager


class Other:
    """Another process that takes part, and runs the lines that it is sent."""

    def __init__(self, path: Path, wait_seconds: float = 30.0) -> None:
        code = (
            f"import sys; sys.path[:0] = [{str(REPOSITORY)!r}]\n"
            "import numpy as np\n"
            "from memories import SharedMemoryManager\n"
            f"m = SharedMemoryManager({str(path)!r}, wait_seconds={wait_seconds}, **{SIZES!r})\n"
            "for line in sys.stdin:\n"
            "    try: print(repr(eval(line)), flush=True)\n"
            "    except Exception as error: print(type(error).__name__, error, flush=True)\n"
            "m.cleanup()\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def run(self, line: str) -> str:
        """Return what an expression gives there, as text."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().rstrip("\n")

    def end(self) -> int:
        """Let it end normally."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait(30)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.end()

    def __enter__(self) -> Other:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()


def count_up(manager: SharedMemoryManager, times: int) -> None:
    """Increment one number, and store a value of one's own."""
    for _ in range(times):
        manager.modify("count", lambda count: count + 1)
    manager.store(f"from/{os.getpid()}", np.arange(3))


@pytest.mark.parametrize("how", ["fork", "spawn", "forkserver"])
def test_processes_of_every_kind_write_one_store(first: SharedMemoryManager, how: str) -> None:
    """However they were started: every increment counts, and every value is there."""
    first["count"] = 0
    context = multiprocessing.get_context(how)
    workers = [context.Process(target=count_up, args=(first, 20)) for _ in range(2)]
    for worker in workers:
        worker.start()
    count_up(first, 20)
    for worker in workers:
        worker.join(100)
    assert [0, 0] == [worker.exitcode for worker in workers]
    assert 60 == first["count"]
    assert 3 == sum(1 for _ in first.scan("from/"))


def test_each_reads_what_any_has_written(first: SharedMemoryManager) -> None:
    """At once: a value, a newer one, a removal; small, large, and of any type."""
    with Other(first.path) as other:
        for turn in range(20):
            first["a"] = turn
            assert str(turn) == other.run("m['a']")
            assert "None" == other.run(f"m.store('b', {turn})")
            assert turn == first["b"]
        assert "None" == other.run("m.store('big', np.arange(1_000_000.0))")
        assert np.array_equal(np.arange(1_000_000.0), first["big"])
        assert not first["big"].flags.writeable
        first["array"] = np.ones((500, 500), dtype="float32")
        assert "(250000.0, (500, 500), False)" == other.run(
            "(float(m['array'].sum()), m['array'].shape, m['array'].flags.writeable)"
        )
        first["things"] = {"a": (1, 2.5, None), "b": [np.arange(2)], "c": "\ud7ff"}
        assert repr(first["things"]) == other.run("m['things']")
        del first["a"]
        assert "False" == other.run("'a' in m")
        assert "KeyNotFoundError" == other.run("m['a']").split()[0]
        assert str(len(first)) == other.run("len(m)")
        assert repr(sorted(first)) == other.run("sorted(m)")
        assert 0 == other.end()


def test_calls_have_the_answers_of_a_manager(first: SharedMemoryManager) -> None:
    """In the writer and in another process: results, defaults, errors with their types."""
    lines = [
        "m.store('x', 5, metadata={'year': 2024})", "m.retrieve('x')", "m.retrieve('y', 7)",
        "m.get_tier('x')", "list(m.find(year=2024))", "m.setdefault('x', 9)", "m.pop('x')",
        "m.pop('x', None)", "m.pop('x')", "m.delete('x')", "m.store('', 1)",
        "m.store('f', iter([]))", "m.store('x', 1, tier='ice')", "m.store(5, 1)",
        "m.store_many({'p/1': 1, 'p/2': b'2', 'q': 3.0})", "m.retrieve_many(['p/1', 'q', 'no'])",
        "list(m.scan('p/'))", "list(m.scan('', '/'))", "m.info('q').nbytes",
        "m.touch('q', 1000)", "m.pin('q')", "m.unpin('q')", "m.migrate('q', 'cold')",
        "m.delete_many(['q', 'no'])", "m.delete_prefix('p/')", "m.store('huge', 1 << 100)",
        "m['huge'] == 1 << 100", "m.modify('huge', lambda huge: 1)", "m.modify('no', abs)",
        "m.flush()", "m.clear()", "len(m)",
    ]  # fmt: skip
    here = []
    for line in lines:
        try:
            here.append(repr(eval(line, {"m": first})))
        except Exception as error:
            here.append(f"{type(error).__name__} {error}")
    with Other(first.path) as other:
        assert here == [other.run(line) for line in lines]


def test_the_next_process_takes_over(tmp_path: Path) -> None:
    """After a normal end no call of the others fails, and nothing is missing."""
    path = tmp_path / "store"
    with Other(path) as writer:
        assert "True" == writer.run("m.is_writer")
        with SharedMemoryManager(path, **SIZES) as second, Other(path) as third:
            assert not second.is_writer
            stop = threading.Event()
            stored: list[int] = []

            def store() -> None:
                while not stop.is_set():
                    second.store(f"n/{len(stored)}", len(stored))
                    stored.append(len(stored))

            thread = threading.Thread(target=store)
            thread.start()
            try:
                until(lambda: len(stored) > 20)
                assert 0 == writer.end()
                before = len(stored)
                until(lambda: len(stored) > before + 20)
            finally:
                stop.set()
                thread.join(30)
            assert second.is_writer or "True" == third.run("m.is_writer")
            assert str(len(stored)) == third.run("len(m)")
            assert all(second[f"n/{number}"] == number for number in stored)


def test_a_killed_writer_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """kill -9 again and again: what a store has returned for is there, in its newest version."""
    path = tmp_path / "store"
    acknowledged: dict[str, int] = {}
    with SharedMemoryManager(path, **SIZES) as manager:
        manager.cleanup()
    number = 0
    survivor = Other(path)
    try:
        for _ in range(4):
            writer = survivor
            assert "True" == writer.run("m.store('alive', 1) or m.is_writer")
            survivor = Other(path)
            assert "False" == survivor.run("m.is_writer")
            killer = threading.Timer(0.15, writer.kill)
            killer.start()
            after = 0  # Stores that began after the kill, and returned.
            while after < 10:
                number, killed = number + 1, not killer.is_alive()
                key = f"k/{number % 50}"
                answer = survivor.run(f"m.store({key!r}, {number})")
                if answer == "None":
                    acknowledged[key] = number
                    after += killed
                else:
                    assert answer.startswith("UnavailableError"), answer
                    acknowledged.pop(key, None)
            killer.join()
            assert "True" == survivor.run("m.is_writer")
            kept = eval(survivor.run("m.retrieve_many(list(m.scan('k/')))"))
            assert acknowledged == {key: kept[key] for key in acknowledged}
    finally:
        survivor.kill()


def test_a_change_in_doubt_is_an_error_and_a_read_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer dies while it works: the change may be done or not, so the caller must know."""
    path, sent = tmp_path / "store", threading.Event()
    send = Channel.send

    def note_sent(channel: Channel, *message: Any) -> None:
        send(channel, *message)
        sent.set()

    with Other(path) as writer:
        writer.run("m.store('a', 1)")
        with SharedMemoryManager(path, **SIZES) as second:
            assert 1 == second["a"]
            os.kill(writer.process.pid, signal.SIGSTOP)  # It takes the call and does nothing.
            os.waitid(os.P_PID, writer.process.pid, os.WSTOPPED | os.WNOWAIT)
            monkeypatch.setattr(Channel, "send", note_sent)
            outcome: list[object] = []

            def change() -> None:
                try:
                    outcome.append(second.store("a", 2))
                except UnavailableError as error:
                    outcome.append(str(error))

            thread = threading.Thread(target=change)
            thread.start()
            assert sent.wait(30)
            writer.kill()
            thread.join(30)
            assert ["may be done or not" in str(one) for one in outcome] == [True]
            assert second["a"] in (1, 2)
            assert second.is_writer


def test_a_writer_that_was_killed_between_calls_is_replaced(tmp_path: Path) -> None:
    """A change that never reached it is made by the one that takes over."""
    path = tmp_path / "store"
    with Other(path) as writer:
        writer.run("m.store('a', 1)")
        with SharedMemoryManager(path, **SIZES) as second:
            second.store("b", 2)
            writer.kill()
            second.store("a", 3)
            assert second.is_writer
            assert (3, 2) == (second["a"], second["b"])


def test_results_are_shared(first: SharedMemoryManager, tmp_path: Path) -> None:
    """A result that one process has computed is found by all others."""
    module = tmp_path / "work.py"
    module.write_text(
        "import sys\n"
        "from memories import SharedMemoryManager\n"
        f"m = SharedMemoryManager({str(first.path)!r}, **{SIZES!r})\n"
        "@m.cache\n"
        "def squares(count):\n"
        "    print('computed')\n"
        "    return [number ** 2 for number in range(count)]\n"
        "assert squares(10)[-1] == 81 and squares(int('10'))[-1] == 81\n"
        "print(squares.cache_info().results, m.is_writer)\n"
    )
    command = [sys.executable, str(module)]
    runs = [subprocess.run(command, capture_output=True, text=True) for _ in range(2)]
    assert ["", ""] == [run.stderr for run in runs]
    assert ["computed\n1 False\n", "1 False\n"] == [run.stdout for run in runs]


def test_a_store_that_is_not_shared_is_not_waited_for_long(tmp_path: Path) -> None:
    """A plain manager does not answer; the error says what to do."""
    with (
        MemoryManager(0.01, 0.01, 0.1, storage_path=tmp_path / "store"),
        Other(tmp_path / "store", wait_seconds=0.3) as other,
    ):
        assert other.process.stdout is not None
        assert "" == other.process.stdout.readline()
        assert 1 == other.process.wait(30)


def test_bad_options_and_closed_managers(tmp_path: Path) -> None:
    """Named, before anything is opened."""
    with pytest.raises(InvalidOptionError, match="write_through= cannot be chosen"):
        SharedMemoryManager(tmp_path / "s", write_through=False)
    with pytest.raises(InvalidOptionError, match="wait_seconds=0"):
        SharedMemoryManager(tmp_path / "s", wait_seconds=0)
    one = SharedMemoryManager(tmp_path / "s", **SIZES)
    two = SharedMemoryManager(tmp_path / "s", **SIZES)
    one["a"] = 1
    with pytest.raises(StoreLockedError, match="with other options"):
        SharedMemoryManager(tmp_path / "s", hot_memory_size="1MB")
    one.cleanup()
    one.cleanup()
    assert 1 == two["a"]
    with pytest.raises(ClosedError):
        one.retrieve("a")
    again = pickle.loads(pickle.dumps(two))
    two.cleanup()
    assert 1 == again["a"]
    with pytest.raises(KeyNotFoundError):
        again.delete("b")
    with pytest.raises(UnsupportedTypeError):
        again.store("b", threading.Lock())
    again.cleanup()


def test_noise_on_the_socket_harms_nothing(first: SharedMemoryManager) -> None:
    """A process of this user that sends anything: only its own connection ends."""
    first["a"] = 1
    noise = (
        b"",
        b"\0" * 9,
        b"\xff" * 100,
        b"\1" + (1 << 63).to_bytes(8, "little"),
        os.urandom(999),
    )
    for sent in noise:
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(str(first.path / "shared.sock"))
            other.sendall(sent)
            other.shutdown(socket.SHUT_WR)
            other.settimeout(60)
            with suppress(ConnectionResetError):  # What was sent is not looked at.
                while other.recv(1000):
                    pass
    with Other(first.path) as other_process:
        assert "1" == other_process.run("m['a']")
        assert "InvalidOptionError" == other_process.run("m._call('cleanup')").split()[0]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_is_not_answered(first: SharedMemoryManager) -> None:
    """Even where the directory lets that user in."""
    for place in (first.path, *first.path.parents[:-1]):
        place.chmod(stat.S_IMODE(place.stat().st_mode) | 0o055)  # /tmp keeps what it has.
    (first.path / "shared.sock").chmod(0o666)
    code = (
        "import os, socket, sys\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.settimeout(30)\n"
        "print(s.recv(1))\n"
    )
    command = [sys.executable, "-c", code, str(first.path / "shared.sock")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "b''\n" == run.stdout, run.stderr


def test_a_directory_with_a_long_path(tmp_path: Path) -> None:
    """A Unix socket may be named by about a hundred bytes only."""
    path = tmp_path / ("long" * 40)
    with SharedMemoryManager(path, **SIZES) as manager, Other(path) as other:
        manager["a"] = 1
        assert "(1, False)" == other.run("m['a'], m.is_writer")


def descriptors() -> int:
    """Return how many files this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """No descriptor, no thread, no socket, after hundreds of calls and many connections."""

    def use() -> None:
        with SharedMemoryManager(tmp_path / "warm-up", **SIZES) as manager:
            manager["a"] = 1
        gc.collect()
        files, threads = descriptors(), threading.active_count()
        for _ in range(3):
            with (
                SharedMemoryManager(tmp_path / "store", **SIZES) as manager,
                Other(tmp_path / "store") as other,
            ):
                for number in range(100):
                    assert "None" == other.run(f"m.store('k', np.arange(20_000) + {number})")
                manager["a"] = 1
                assert 0 == other.end()
            gc.collect()
            until(lambda: descriptors() <= files and threading.active_count() <= threads)

    assert "None" == in_child(use), "in a process where no manager of another test is at work"
    assert not (tmp_path / "store" / "shared.sock").exists()
