"""A web service with two workers: sessions and rendered pages with a time to live.

Users log in, read pages and fill carts. Then one worker is killed, and later all are replaced, as a
deploy does it, while the users go on. What was acknowledged must be there, whichever worker
answers, and no session is served after its end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from days.judging import Bar, Judgement, Run, Scale
from days.running import missing, peak_rss
from days.web_service.load import PAGES, Seen, User, use
from days.web_service.pages import render
from memories.cluster.local import LocalServer
from memories.cluster.local.server import free_port

WORKERS = 2
START_SECONDS = 30.0
TICK = os.sysconf("SC_CLK_TCK")

FLOOR = "the floor"
PROGRAMS = {
    "memories": ("with_memories", ()),
    "redis-py": ("with_redis", ("redis",)),
    "diskcache": ("with_diskcache", ("diskcache",)),
    FLOOR: ("with_floor", ()),
}


@dataclass(frozen=True)
class Plan:
    """How many users, and how many requests each makes: calmly, at a kill, at a deploy."""

    users: int
    calm: int
    rough: int
    session_seconds: float


PLANS = {Scale.SMALL: Plan(3, 60, 60, 0.5), Scale.FULL: Plan(6, 1000, 300, 2.0)}


class Service:
    """Workers of one program behind one port."""

    def __init__(self, program: str, environment: dict[str, str], log: Path) -> None:
        self._environment = environment
        self._log = log
        self.port = free_port()  # No connection that goes out can get it meanwhile.
        self._command = [
            sys.executable, "-m", "uvicorn", f"days.web_service.{program}:app",
            "--port", str(self.port), "--workers", str(WORKERS), "--log-level", "warning",
            "--no-access-log", "--timeout-graceful-shutdown", "5",
        ]  # fmt: skip

    def start(self) -> None:
        """Start the workers, and return when one of them answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the workers did not come up:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Ask the workers to end, as a deploy does, and wait until they have."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=30)

    def workers(self) -> list[int]:
        """Return the process ids of the workers."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [
            int(pid)
            for pid in children.read_text().split()
            if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()
        ]

    def taken(self) -> tuple[float, int]:
        """Return the processor seconds, and the most bytes of RAM, of the workers."""
        seconds, rss = 0.0, 0
        for pid in self.workers():
            counts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            seconds += (int(counts[11]) + int(counts[12])) / TICK
            rss += peak_rss(pid)
        return seconds, rss

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as probe:
                probe.sendall(b"GET /none/cart HTTP/1.1\r\nhost: a\r\n\r\n")
                return probe.recv(100).startswith(b"HTTP/1.1 401")
        except OSError:
            return False


@contextlib.contextmanager
def _later(seconds: float, action: threading.Thread) -> Iterator[None]:
    """Start the thread after some time, while the block runs, and wait for it."""
    timer = threading.Timer(seconds, action.start)
    timer.start()
    yield
    timer.join()
    action.join()


def serve(name: str, folder: Path, plan: Plan, pages: dict[int, bytes]) -> tuple[Run, Seen]:
    """Run one program under its users, on a server that is fresh and empty."""
    program, _ = PROGRAMS[name]
    folder.mkdir(parents=True)
    (folder / "node").mkdir()
    with LocalServer(folder / "node") as node:
        environment = os.environ | {
            "NODE": node.name,
            "FOLDER": str(folder / "cache"),
            "RENDERS": str(folder / "renders"),
            "SESSION_SECONDS": str(plan.session_seconds),
        }
        service = Service(program, environment, folder / "log")
        users = [User(service.port, number, plan.session_seconds) for number in range(plan.users)]
        service.start()
        try:
            use(users, plan.calm // 10, pages)
            cpu_before, _ = service.taken()
            seconds = use(users, plan.calm, pages)
            cpu_after, rss = service.taken()
            pid = service.workers()[0]
            kill = threading.Thread(target=os.kill, args=(pid, signal.SIGKILL))
            with _later(0.05, kill):
                use(users, plan.rough, pages)

            def deploy() -> None:
                service.stop()
                service.start()

            with _later(0.05, threading.Thread(target=deploy)):
                use(users, plan.rough, pages)
        finally:
            service.stop()
    seen = Seen()
    for user in users:
        assert user.seen.errors == [], f"{user.seen.errors}: {(folder / 'log').read_text()[-4000:]}"
        for field in fields(Seen):
            setattr(seen, field.name, getattr(seen, field.name) + getattr(user.seen, field.name))
    disk = sum(one.stat().st_size for one in (folder / "cache").rglob("*") if one.is_file())
    return Run(name, seen.requests, seconds, cpu_after - cpu_before, rss, disk), seen


def judge(scale: Scale, folder: Path) -> Judgement:
    """Run each program under the same users, and add up what they saw."""
    plan = PLANS[scale]
    pages = {number: render(number).encode() for number in range(PAGES)}
    absent = {name: why for name, (_, needs) in PROGRAMS.items() if (why := missing(*needs))}
    runs: dict[str, Run] = {}
    facts: dict[str, float] = {}
    for name in PROGRAMS:
        if scale is Scale.SMALL and name != "memories":
            absent.setdefault(name, "runs at full scale only: its workers start slowly")
        if name in absent:
            continue
        runs[name], seen = serve(name, folder / name, plan, pages)
        assert seen.wrong == 0, name
        facts[f"requests/s of {name}"] = plan.users * plan.calm / runs[name].seconds
        facts[f"rendered by {name}"] = (folder / name / "renders").stat().st_size
        facts[f"sent again to {name}"] = seen.retried
        if name == "memories":
            ours = seen
        else:
            facts[f"lost by {name}"] = seen.lost + seen.ended_early
            facts[f"stale from {name}"] = seen.stale
    bars = [
        Bar("acknowledged items that were lost", ours.lost, 0, counted=True),
        Bar("sessions refused before their end", ours.ended_early, 0, counted=True),
        Bar("answers from sessions that had ended", ours.stale, 0, counted=True),
    ]
    bars += [
        Bar(f"time of a request beside {name}", runs["memories"].seconds / one.seconds, 1.0,
            floor=runs[FLOOR].seconds / one.seconds)
        for name, one in runs.items()
        if name not in ("memories", FLOOR)
    ]  # fmt: skip
    title = f"A web service: {WORKERS} workers, {plan.users} users, a kill and a deploy"
    return Judgement(title, runs, bars, facts, absent)
