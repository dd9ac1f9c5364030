"""A service that runs for a month, in fast motion: its clock is set by hand, its bytes are real.

Sessions end after half an hour, pages after a day, logs move to the disk after a day and go after a
week. The load follows the time of day; every night old reports are cleared out, and every week the
models are upgraded and a snapshot is taken. What the process holds after the fourth week is
compared with what it held after the first.
"""

from __future__ import annotations

import ctypes
import gc
import math
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from days.judging import Bar, Judgement, Run, Scale
from days.running import missing, run
from memories import MemoryManager, Rule
from memories.core import wiring
from memories.foundation.resident import resident_bytes
from memories.testing.clock import ManualClock

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
WEEKS = 4
QUARTERS = 4  # Steps of the clock in an hour.
RULES = (
    Rule(prefix="model/", tier="hot", max_tier="hot"),
    Rule(prefix="log/", tier="warm", move_to="cold", after="1 day", ttl="7 days"),
    Rule(prefix="page/", ttl="1 day"),
)
COLD = 160_000_000
RESTARTS_DESCRIPTORS = 4  # Each start may leave one more file of the index, until they are merged.
LIBC = ctypes.CDLL(None)


@dataclass(frozen=True)
class Plan:
    """How much happens at noon in a quarter of an hour, and how large an array is."""

    busiest: int
    points: int


PLANS = {Scale.SMALL: Plan(4, 500), Scale.FULL: Plan(60, 4000)}


@dataclass(frozen=True)
class Held:
    """What the process holds at the end of a week, and what a read took in that week."""

    rss: int
    blocks: int
    disk: int
    descriptors: int
    threads: int
    microseconds: float


class Service:
    """The service; `store` is a mapping, and `expected` is what must be in it.

    Args:
        put: Stores a value, with the seconds that it lives.
        get: Returns a value, or None.
        drop: Removes all keys with a prefix.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        clock: ManualClock,
        put: Callable[[str, Any, float], None],
        get: Callable[[str], Any],
        drop: Callable[[str], None],
        weekly: Callable[[int], None],
        pass_time: Callable[[], None],
    ) -> None:
        self.folder, self.plan, self.clock = folder, plan, clock
        self.put, self.get, self.drop = put, get, drop
        self.weekly, self.pass_time = weekly, pass_time
        self.expected: dict[str, tuple[int, float]] = {}  # Key to seed and end.
        self.seed = 0
        self.wrong = self.reads = 0
        self.threads = 0  # The most of this week: just after a restart some have not begun.
        self.took: list[float] = []

    def month(self) -> list[Held]:
        """Live through four weeks, and return what was held after each."""
        held = []
        for week in range(WEEKS):
            chance = random.Random(1)  # Every week has the same load.
            self.threads = 0
            for day in range(7):
                for hour in range(24):
                    for _ in range(QUARTERS):
                        self.quarter(week, day, hour, chance)
                    self.pass_time()
                    self.threads = max(self.threads, threading.active_count())
                self.clear("report/")
            self.upgrade(week)
            self.weekly(week)
            held.append(self.now())
        return held

    def quarter(self, week: int, day: int, hour: int, chance: random.Random) -> None:
        """Let a quarter of an hour pass, busy at noon and quiet at night."""
        self.clock.advance(HOUR / QUARTERS)
        share = 0.1 + 0.9 * (1 - math.cos(hour / 24 * 2 * math.pi)) / 2
        for _ in range(max(1, round(self.plan.busiest * share))):
            what = chance.random()
            if what < 0.15:
                self.keep(f"session/{chance.randrange(10**9)}", 30 * MINUTE)
            elif what < 0.25:
                self.keep(f"page/{chance.randrange(200)}", DAY)
            elif what < 0.30:
                self.keep(f"log/{chance.randrange(10**9)}", 7 * DAY)
            elif what < 0.35:
                self.keep(f"report/{chance.randrange(50)}", math.inf)
            elif what < 0.6:
                self.read(f"model/{week}/{chance.randrange(20)}")
            elif what < 0.9:
                self.read(f"page/{int(chance.paretovariate(0.8)) % 200}")
            else:
                self.read(f"report/{chance.randrange(50)}")

    def upgrade(self, week: int) -> None:
        """Replace the models by those of the next week."""
        for number in range(20):
            self.keep(f"model/{week + 1}/{number}", math.inf)
        self.clear(f"model/{week}/")

    def clear(self, prefix: str) -> None:
        """Remove all keys with a prefix."""
        self.drop(prefix)
        for key in [key for key in self.expected if key.startswith(prefix)]:
            del self.expected[key]

    def keep(self, key: str, seconds: float) -> None:
        """Store the next value."""
        self.seed += 1
        self.put(key, self.value(key, self.seed), seconds)
        self.expected[key] = (self.seed, self.clock.wall() + seconds)

    def read(self, key: str) -> None:
        """Read a key, and compare it with what must be there."""
        started = time.perf_counter()
        found = self.get(key)
        self.took.append(time.perf_counter() - started)
        self.reads += 1
        self.wrong += not self.right(key, found)

    def right(self, key: str, found: Any) -> bool:
        """Return whether that is the value of `key` now."""
        seed, ends = self.expected.get(key, (0, 0.0))
        if self.clock.wall() >= ends:
            return found is None
        return found is not None and same(found, self.value(key, seed))

    def value(self, key: str, seed: int) -> Any:
        """Return the value with this number."""
        if key.startswith("session/"):
            return {"user": seed, "cart": [seed, seed + 1]}
        if key.startswith("page/"):
            return f"{seed} " * (self.plan.points // 2)
        return np.arange(seed, seed + self.plan.points, dtype=np.float64)

    def now(self) -> Held:
        """Measure what is held, with what has expired out of the model."""
        wall = self.clock.wall()
        self.expected = {key: one for key, one in self.expected.items() if one[1] > wall}
        microseconds = 1e6 * statistics.median(self.took)
        self.took = []
        gc.collect()
        LIBC.malloc_trim(0)
        return Held(
            rss=resident_bytes() or 0,
            blocks=len(gc.get_objects()),
            disk=sum(one.stat().st_size for one in self.folder.rglob("*") if one.is_file()),
            descriptors=len(list(Path("/proc/self/fd").iterdir())),
            threads=self.threads,
            microseconds=microseconds,
        )


def same(left: Any, right: Any) -> bool:
    """Return whether two values are equal."""
    return np.array_equal(left, right) if isinstance(right, np.ndarray) else bool(left == right)


@contextmanager
def manager_on(clock: ManualClock, folder: Path) -> Iterator[MemoryManager]:
    """Open the store on that clock."""
    with patch.object(wiring, "SystemClock", lambda: clock):
        manager = MemoryManager("4 MB", "8 MB", f"{COLD} B", storage_path=folder, rules=RULES)
    migrator = manager._services.migrator
    assert migrator is not None
    migrator.stop()  # Its turns are taken when time passes, not ten times in a real second.
    with manager:
        yield manager


def memories(folder: Path, plan: Plan) -> dict[str, Any]:
    """Live through the month with a manager; it is restarted every week."""
    clock = ManualClock()
    with ExitStack() as stack:
        manager = stack.enter_context(manager_on(clock, folder / "store"))

        def put(key: str, value: Any, seconds: float) -> None:
            manager.store(key, value, ttl=None if seconds == math.inf else seconds)

        def drop(prefix: str) -> None:
            manager.delete_prefix(prefix)

        def weekly(week: int) -> None:
            nonlocal manager
            manager.create_snapshot(folder / "weekly.npz")
            stack.close()
            manager = stack.enter_context(manager_on(clock, folder / "store"))

        def pass_time() -> None:
            migrator = manager._services.migrator
            assert migrator is not None
            migrator.tick()

        service = Service(
            folder, plan, clock, put, lambda key: manager.retrieve(key, None), drop, weekly,
            pass_time,
        )  # fmt: skip
        held = service.month()
        left = dict(manager)
        lost = [key for key in service.expected if not service.right(key, left.get(key))]
        extra = left.keys() - service.expected.keys()
    return {
        "held": [asdict(one) for one in held],
        "wrong": service.wrong + len(lost) + len(extra),
        "reads": service.reads,
    }


def diskcache(folder: Path, plan: Plan) -> dict[str, Any]:
    """Live through the month with diskcache."""
    from diskcache import Cache

    clock = ManualClock()
    with patch.object(time, "time", clock.wall), Cache(folder / "store") as cache:

        def put(key: str, value: Any, seconds: float) -> None:
            cache.set(key, value, expire=None if seconds == math.inf else seconds)

        def drop(prefix: str) -> None:
            for key in [key for key in cache if key.startswith(prefix)]:
                del cache[key]

        service = Service(
            folder, plan, clock, put, cache.get, drop, lambda week: None, cache.expire
        )
        held = service.month()
        lost = [key for key in service.expected if not service.right(key, cache.get(key))]
    return {
        "held": [asdict(one) for one in held],
        "wrong": service.wrong + len(lost),
        "reads": service.reads,
    }


PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "memories": (memories, ()),
    "diskcache": (diskcache, ("diskcache",)),
}


def judge(scale: Scale, folder: Path) -> Judgement:
    """Live through the month with each; compare the fourth week with the first."""
    runs: dict[str, Run] = {}
    absent: dict[str, str] = {}
    for name, (program, needs) in PROGRAMS.items():
        if why := missing(*needs):
            absent[name] = why
            continue
        runs[name] = run(program, folder / name, PLANS[scale], name=name)
        assert runs[name].answer["wrong"] == 0, f"{name}: {runs[name].answer}"
    first, *_, last = runs["memories"].answer["held"]
    bars = [
        Bar("RAM after week 4 beside week 1", last["rss"] / first["rss"], 1.15, counted=True),
        Bar("objects of Python, the same", last["blocks"] / first["blocks"], 1.02, counted=True),
        Bar(
            "more bytes on the disk, beside the sixteenth of cold that may be dead",
            (last["disk"] - first["disk"]) / (COLD / 16),
            1.0,
            counted=True,
        ),
        Bar(
            "more descriptors",
            last["descriptors"] - first["descriptors"],
            RESTARTS_DESCRIPTORS,
            counted=True,
        ),
        Bar("more threads", last["threads"] - first["threads"], 0, counted=True),
        Bar("time of a read, the same", last["microseconds"] / first["microseconds"], 1.2),
    ]
    if "diskcache" in runs:
        theirs = runs["diskcache"].answer["held"][-1]["microseconds"]
        bars.append(Bar("time of a read beside diskcache", last["microseconds"] / theirs, 0.5))
    facts: dict[str, float] = {}
    for name, one in runs.items():
        end = one.answer["held"][-1]
        facts[f"us a read with {name}"] = round(end["microseconds"], 1)
        facts[f"MB of RAM with {name}"] = round(end["rss"] / 1e6)
    title = f"A month of a service: {runs['memories'].answer['reads']:,} reads, a restart a week"
    return Judgement(title, runs, bars, facts, absent)
