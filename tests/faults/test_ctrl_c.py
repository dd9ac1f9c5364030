"""Ctrl-C while a bucket hangs: it takes effect at once; the program goes on or the process ends.

The children are real processes, the signals real ones, and behind the proxy is a real server that
is not asked. No signal reaches the client of a bucket while it waits for an answer.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.buckets import seaweed
from tests.support.buckets.fixtures import s3, s3_proxy, s3_url  # noqa: F401
from tests.support.buckets.proxy import Fault, MisbehavingProxy

pytestmark = pytest.mark.server

LONG = 30.0  # Only a call that waits for the bucket's time-outs takes so long: a minute or more.

OPENING = """
import sys
import numpy as np
from memories import MemoryManager

def opened(name, **options):
    return MemoryManager(
        "90 MB", "90 MB", "500 MB", True, storage_path=name and f"{sys.argv[1]}/{name}",
        glacier_url=sys.argv[2], storage_options=eval(sys.argv[3]), migration=False, **options
    )

large = np.random.default_rng(1).integers(0, 256, 40_000_000, np.uint8)
medium = large[:1_000_000]

"""

# Each line of what is printed is the outcome of a call that was to hang, or of what came after.
NOTEBOOK = (
    OPENING
    + """
def reopen():
    global manager
    manager = opened("store")

reopen()
manager.store("small", 1, "glacier")
manager.store("medium", medium, "glacier")
manager.store("large", large, "glacier")
manager.store("cold", medium, "cold")
manager.flush()
calls = {
    "one request": lambda: manager.retrieve("medium"),
    "many ranges": lambda: manager.retrieve("large"),
    "a part": lambda: manager.retrieve("large", region=np.s_[9_000_000:30_000_000]),
    "many values": lambda: manager.retrieve_many(["small", "medium", "large"]),
    "store": lambda: manager.store("new", medium, "glacier"),
    "store in parts": lambda: manager.store("new", large, "glacier"),
    "overwrite": lambda: manager.store("medium", medium + 1, "glacier"),
    "migrate": lambda: manager.migrate("cold", "glacier"),
    "promote": lambda: manager.promote("large"),
    "pack": lambda: (manager.store("staged", 2, "glacier"), manager.flush()),
    "check": lambda: manager.check(),
    "snapshot": lambda: manager.create_snapshot(sys.argv[1] + "/snapshot"),
    "reference": lambda: manager.create_snapshot(
        sys.argv[1] + "/snapshot", include_glacier="reference"
    ),
    "open": lambda: opened("other"),
    "read only": lambda: opened(None, read_only=True),
    "cleanup": lambda: manager.cleanup(),
    "reopen": reopen,
}
for number, line in enumerate(sys.stdin):
    name = line.strip()
    try:
        print("begun", flush=True)
        calls[name]()
        print("done", flush=True)
    except KeyboardInterrupt:
        if name == "reopen":
            print("interrupted", flush=True)
            continue
        manager.store("hot", number)
        manager.store(f"cold {number}", number, "cold")
        assert number == manager["hot"] == manager[f"cold {number}"]
        print("interrupted", flush=True)
"""
)

ENDING = (
    OPENING
    + """
manager = opened("store")
manager.store("large", large, "glacier")
manager.store("hot", 1)
manager.flush()
print("ready", flush=True)
sys.stdin.readline()
print("begun", flush=True)
manager.retrieve("large")
"""
)


class Child:
    """A process that makes the calls it is given, behind a proxy that may hang."""

    def __init__(self, process: subprocess.Popen[str], proxy: MisbehavingProxy) -> None:
        self.process = process
        self._proxy = proxy

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def begin(self, name: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{name}\n")
        self.process.stdin.flush()
        assert "begun" == self.says(), self.end()

    def does(self, name: str) -> str:
        self.begin(name)
        return self.says() or self.end()

    def interrupt(self, name: str, seconds: float = 1.0) -> float:
        """Begin a call, press Ctrl-C once it waits for the bucket, and return when."""
        asked = len(self._proxy.requests)
        self.begin(name)
        # One that waits for what another thread has under way asks nothing itself.
        give_up = time.monotonic() + seconds
        while len(self._proxy.requests) == asked and time.monotonic() < give_up:
            time.sleep(0.01)
        self.process.send_signal(signal.SIGINT)
        return time.monotonic()

    def end(self) -> str:
        return self.process.communicate(timeout=60)[1]


Start = Callable[[str], Child]


@pytest.fixture
def start(
    s3: seaweed.SeaweedServer,  # noqa: F811
    s3_proxy: MisbehavingProxy,  # noqa: F811
    s3_url: str,  # noqa: F811
    tmp_path: Path,
) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def begin(script: str) -> Child:
        options = s3.storage_options(s3_proxy.endpoint)
        command = [sys.executable, "-c", script, str(tmp_path), s3_url, repr(options)]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True))
        return Child(started[-1], s3_proxy)

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@contextmanager
def hanging(proxy: MisbehavingProxy) -> Iterator[None]:
    """Answer nothing in the block; at its end, cut the connections that still wait."""
    proxy.fault = lambda request: Fault(hang=True)
    yield
    proxy.fault = lambda request: None
    proxy.cut()


def test_a_thread_that_interrupts_a_call_on_a_hanging_bucket_goes_on(
    start: Start,
    s3_proxy: MisbehavingProxy,  # noqa: F811
) -> None:
    """Every call of the face ends by it, other tiers work, and the archive does when it is back."""
    child = start(NOTEBOOK)
    names = [
        "one request", "many ranges", "a part", "many values", "store", "store in parts",
        "overwrite", "migrate", "promote", "pack", "check", "snapshot", "reference",
        "open", "read only",
    ]  # fmt: skip
    assert "done" == child.does("one request")
    with hanging(s3_proxy):
        for name in names:
            began = child.interrupt(name)
            assert (name, "interrupted") == (name, child.says())
            assert time.monotonic() - began < LONG, name
    for name in ("many ranges", "many values", "store in parts", "overwrite", "pack", "cleanup"):
        assert (name, "done") == (name, child.does(name))
    s3_proxy.fault = lambda request: Fault(hang=True)
    child.interrupt("reopen")
    assert "interrupted" == child.says()
    s3_proxy.fault = lambda request: None  # The request of that opening goes on hanging.
    for name in ("reopen", "many ranges", "cleanup"):
        assert (name, "done") == (name, child.does(name))
    assert "" == child.end()
    assert 0 == child.process.returncode


def test_an_interrupted_process_ends_though_the_bucket_hangs(
    start: Start,
    s3_proxy: MisbehavingProxy,  # noqa: F811
) -> None:
    """Within the ten seconds of any end, by the signal, and what was only in RAM is written."""
    child = start(ENDING)
    assert "ready" == child.says()
    with hanging(s3_proxy):
        child.interrupt("", LONG)
        began = time.monotonic()
        err = child.end()
        assert time.monotonic() - began < 30  # Ten, and what a busy machine takes.
    assert -signal.SIGINT == child.process.returncode
    assert err.count("memories: ") == 1, err
    assert "waiting for the archive" in err
    assert "\nKeyboardInterrupt\n" in err
