"""Values on three local servers: large, small, near, and with a node that dies in the middle.

Side by side with redis-py (and hiredis, if it is installed), valkey-py, and a client of bare
sockets that does the least that can be done: every chunk goes to two of the nodes by sendmsg from
the array's memory, and comes back from one by recv_into. All have two copies, chunks of 4 MiB, and
one thread a node.
"""

from __future__ import annotations

import argparse
import random
import socket
import statistics
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import numpy as np
import redis
import valkey
from _race import machine

from memories import DistributedMemoryManager
from memories.cluster.local import LocalGroup
from memories.errors import MemoriesError

CHUNK_BYTES = 4 << 20
SMALL_VALUES = 10_000
Client = Any


class Peer:
    """A client that knows no replication: chunk i lies on node i and on the one after it.

    It retrieves into memory that is fresh, as any call that returns an array must.
    """

    keeps_memory = False

    def __init__(self, group: LocalGroup, data: memoryview) -> None:
        self.group = group
        self.count = len(group.servers)
        self.chunks = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
        self.room = memoryview(np.zeros(len(data), np.uint8))

    def store(self) -> None:
        """Store every chunk twice."""
        self.on_each_node(self.store_share)

    def retrieve(self) -> memoryview:
        """Fetch every chunk once."""
        if not self.keeps_memory:
            self.room = memoryview(np.empty(len(self.room), np.uint8))
        self.on_each_node(self.retrieve_share)
        return self.room

    def on_each_node(self, work: Callable[[int], None]) -> None:
        """Run `work` for every node in a thread of its own."""
        threads = [threading.Thread(target=work, args=(node,)) for node in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def of_node(self, node: int, copies: Sequence[int]) -> list[int]:
        """Return the chunks of which a node holds one of these copies."""
        return [
            index
            for index in range(len(self.chunks))
            if (node - index) % self.count in copies
        ]  # fmt: skip

    def store_share(self, node: int) -> None:
        """Store what one node is to hold."""
        raise NotImplementedError

    def retrieve_share(self, node: int) -> None:
        """Fetch what one node is asked for."""
        raise NotImplementedError


class BareSocket(Peer):
    """Two system calls a chunk and no more, always into the same memory."""

    keeps_memory = True

    def __init__(self, group: LocalGroup, data: memoryview) -> None:
        super().__init__(group, data)
        self.sockets = [socket.create_connection(("127.0.0.1", s.port)) for s in group.servers]
        for one in self.sockets:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def store_share(self, node: int) -> None:
        """Send every chunk, then read the answers."""
        sock = self.sockets[node]
        for index in self.of_node(node, (0, 1)):
            chunk = self.chunks[index]
            head = b"*3\r\n$3\r\nSET\r\n$8\r\n%08d\r\n$%d\r\n" % (index, len(chunk))
            buffers = [memoryview(head), chunk, memoryview(b"\r\n")]
            while buffers:
                sent = sock.sendmsg(buffers)
                while buffers and sent >= len(buffers[0]):
                    sent -= len(buffers.pop(0))
                if sent:
                    buffers[0] = buffers[0][sent:]
            answer = b""
            while not answer.endswith(b"\r\n"):
                answer += sock.recv(64)
            assert answer == b"+OK\r\n"

    def retrieve_share(self, node: int) -> None:
        """Ask for each chunk, and receive it where it belongs."""
        sock = self.sockets[node]
        for index in self.of_node(node, (0,)):
            sock.sendall(b"*2\r\n$3\r\nGET\r\n$8\r\n%08d\r\n" % index)
            head = b""
            while not head.endswith(b"\r\n"):
                head += sock.recv(1)
            length = int(head[1:])
            view = self.room[index * CHUNK_BYTES : index * CHUNK_BYTES + length]
            while view:
                view = view[sock.recv_into(view) :]
            end = b""
            while len(end) < 2:
                end += sock.recv(2 - len(end))


class FreshSocket(BareSocket):
    """The same into memory that is fresh."""

    keeps_memory = False


class Library(Peer):
    """redis-py or valkey-py, which have one interface."""

    def __init__(self, group: LocalGroup, data: memoryview, connect: Callable[..., Client]) -> None:
        super().__init__(group, data)
        self.clients = [connect(port=server.port) for server in group.servers]

    def store_share(self, node: int) -> None:
        """Set each chunk."""
        for index in self.of_node(node, (0, 1)):
            self.clients[node].set(b"%08d" % index, self.chunks[index])

    def retrieve_share(self, node: int) -> None:
        """Get each chunk and copy it where it belongs."""
        for index in self.of_node(node, (0,)):
            chunk = self.clients[node].get(b"%08d" % index)
            self.room[index * CHUNK_BYTES : index * CHUNK_BYTES + len(chunk)] = chunk


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table as the documents have it."""
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|---|{'---:|' * (len(head) - 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def large(group: LocalGroup, manager: DistributedMemoryManager, nbytes: int, rounds: int) -> None:
    """Race the clients over one large array, and watch the memory of ours."""
    array = np.random.default_rng(1).integers(0, 1 << 62, nbytes // 8, np.int64)
    data = memoryview(array).cast("B")
    peers: dict[str, Peer] = {
        "bare socket": BareSocket(group, data),
        "bare socket, fresh memory": FreshSocket(group, data),
        "redis-py": Library(group, data, redis.Redis),
        "valkey-py": Library(group, data, valkey.Valkey),
    }
    seconds: dict[str, list[tuple[float, float]]] = {"memories": [], **{one: [] for one in peers}}
    memory: list[tuple[int, int]] = []
    order = list(seconds)
    for turn in range(rounds):
        random.Random(turn).shuffle(order)
        for name in order:
            peers["bare socket"].store()  # The servers touch their memory, too.
            empty(group)
            touch(2 * nbytes)
            if name == "memories":
                seconds[name].append(ours(manager, array, memory))
                continue
            began = perf_counter()
            peers[name].store()
            stored = perf_counter()
            touch(nbytes)
            again = perf_counter()
            got = peers[name].retrieve()
            seconds[name].append((stored - began, perf_counter() - again))
            assert got == data, name
    empty(group)
    best = {name: tuple(map(min, zip(*pairs, strict=True))) for name, pairs in seconds.items()}
    bare = best["bare socket"]
    table(
        f"An array of {nbytes / 1e6:.0f} MB, two copies, best of {rounds} "
        "(bars: store and retrieve at most 1.3 times the bare socket)",
        ["client", "store s", "times bare", "retrieve s", "times bare"],
        [
            [name, f"{one[0]:.4f}", f"{one[0] / bare[0]:.2f}",
             f"{one[1]:.4f}", f"{one[1] / bare[1]:.2f}"]
            for name, one in best.items()
        ],
    )  # fmt: skip
    store, retrieve = (
        best["memories"][way] / min(best["redis-py"][way], best["valkey-py"][way]) for way in (0, 1)
    )
    medians = [
        max(
            ratio(
                [pair[way] for pair in seconds["memories"]], [pair[way] for pair in seconds[peer]]
            )
            for peer in ("redis-py", "valkey-py")
        )
        for way in (0, 1)
    ]
    print(
        f"\nOf the time of the faster library (bar: 1.0): store {store:.2f}, "
        f"retrieve {retrieve:.2f}; median of the rounds {medians[0]:.2f}, {medians[1]:.2f}"
    )
    extra = [max(pair) / 1e6 for pair in zip(*memory, strict=True)]
    print(
        f"\nPeak of our memory beyond the array (bar: 64 MB): store {extra[0]:.1f} MB, "
        f"retrieve {extra[1]:.1f} MB"
    )


def ours(
    manager: DistributedMemoryManager, array: np.ndarray, memory: list[tuple[int, int]]
) -> tuple[float, float]:
    """Store and retrieve by the manager; note by how much the peak of RSS exceeds the array."""
    before = forget_peak()
    began = perf_counter()
    manager.store_distributed("large", array)
    stored = perf_counter()
    store_extra = peak() - before
    touch(array.nbytes)
    before = forget_peak()
    again = perf_counter()
    got = manager.retrieve_distributed("large")
    retrieved = perf_counter()
    memory.append((store_extra, peak() - before - array.nbytes))
    assert np.array_equal(got, array)
    return stored - began, retrieved - again


def touch(nbytes: int) -> None:
    """Use so much memory for a moment, so that the next call finds it.

    A virtual machine gives free memory back to its host, and a byte that has to be got from there
    again takes several times as long as all that a client does with it.
    """
    np.empty(nbytes, np.uint8)[::4096] = 1


def forget_peak() -> int:
    """Let the peak of this process's RSS begin anew, and return what it is now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """Return the peak of this process's RSS in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def empty(group: LocalGroup) -> None:
    """Remove all values of peers and of ours, but not what the nodes know of each other."""
    for server in group.servers:
        names = server.call("KEYS", "*")
        assert isinstance(names, list)
        if gone := [name for name in names if name[:2] != b"m:" or name[:4] in (b"m:c:", b"m:r:")]:
            server.call("DEL", *gone)
        while b"lazyfree_pending_objects:0" not in server.call("INFO", "memory"):  # type: ignore[operator]
            sleep(0.001)


def race(ways: dict[str, Callable[[], object]], rounds: int, calls: int) -> dict[str, list[float]]:
    """Return the microseconds of each way in some rounds, in which all take turns."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = perf_counter()
            for _ in range(calls):
                way()
            spent[name].append((perf_counter() - began) / calls * 1e6)
    return spent


def ratio(ours_: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the ratios of rounds, in each of which the machine is equally busy."""
    return statistics.median(one / other for one, other in zip(ours_, theirs, strict=True))


def pipelined(client: Client, command: str, values: dict[str, bytes]) -> Callable[[], object]:
    """Return a function that sets or gets all values by one pipeline of a peer."""

    def run() -> object:
        options = {"transaction": False} if isinstance(client, redis.Redis) else {}
        pipe = client.pipeline(**options)
        for key, value in values.items():
            if command == "set":
                pipe.set(key, value)
            else:
                pipe.get(key)
        return pipe.execute()

    return run


def small(kind: str, peer: Client, manager: DistributedMemoryManager, rounds: int) -> None:
    """Race one value of 1 KB, and many of them; a peer stores one copy and answers from one node.

    On a Cluster a second peer waits for its replica, as the manager does.
    """
    value = random.Random(1).randbytes(1024)
    values = {f"k{number}": random.Random(number).randbytes(1024) for number in range(SMALL_VALUES)}

    def store() -> None:
        manager.store_distributed("one", value)

    def peer_wait() -> None:
        peer.set("one", value)
        peer.wait(1, 1000, target_nodes=peer.get_node_from_key("one"))

    ones: dict[str, Callable[[], object]] = {
        "redis-py, a store": lambda: peer.set("one", value),
        "store": store,
        "redis-py, a retrieve": lambda: peer.get("one"),
        "retrieve": lambda: manager.retrieve_distributed("one"),
    }
    if kind == "Cluster":
        ones["redis-py, a store and WAIT"] = peer_wait
    store()
    spent = race(ones, 50 * rounds, 20)
    many: dict[str, Callable[[], object]] = {
        "redis-py, many stores": pipelined(peer, "set", values),
        "store_many": lambda: manager.store_many_distributed(values),
        "redis-py, many retrieves": pipelined(peer, "get", values),
        "retrieve_many": lambda: manager.retrieve_many_distributed(values),
    }
    for name, times in race(many, rounds, 1).items():
        spent[name] = [one / SMALL_VALUES for one in times]
    middle = {name: statistics.median(times) for name, times in spent.items()}
    rows = [
        [
            what, f"{middle[ours_]:.0f}", f"{middle[theirs]:.0f}",
            f"{ratio(spent[ours_], spent[theirs]):.2f}",
        ]
        for what, ours_, theirs in (
            ("store", "store", "redis-py, a store"),
            ("store, beside a WAIT", "store", "redis-py, a store and WAIT"),
            ("retrieve", "retrieve", "redis-py, a retrieve"),
            (f"store {SMALL_VALUES:,}, each", "store_many", "redis-py, many stores"),
            (f"retrieve {SMALL_VALUES:,}, each", "retrieve_many", "redis-py, many retrieves"),
        )
        if theirs in spent
    ]  # fmt: skip
    table(
        f"{kind}: values of 1 KB, two copies of ours and one of redis-py's, medians",
        ["call", "us", "redis-py us", "ratio"],
        rows,
    )


def small_on_cluster(folder: Path, rounds: int) -> None:
    """Race small values on a Cluster of three primaries and three replicas."""
    nodes = folder / "cluster"
    nodes.mkdir()
    with (
        LocalGroup(nodes, 3, replicas=1) as group,
        DistributedMemoryManager(
            0.01, 0.1, 0.1, nodes=group.names, replication_factor=2, near_cache=False
        ) as manager,
    ):
        peer = redis.RedisCluster(host="127.0.0.1", port=group.servers[0].port)
        small("Cluster", peer, manager, rounds)


def memory(group: LocalGroup, manager: DistributedMemoryManager) -> None:
    """Compare the memory of the nodes for each copy with that of a plain SET."""

    def used() -> int:
        texts = [server.call("INFO", "memory") for server in group.servers]
        return sum(int(text.split(b"used_memory:")[1].split()[0]) for text in texts)  # type: ignore[attr-defined]

    kinds: dict[str, Callable[[int], Any]] = {
        "an int": lambda number: number,
        "100 B": lambda number: random.Random(number).randbytes(100),
        "1 KB": lambda number: random.Random(number).randbytes(1024),
    }
    rows = []
    client = redis.Redis(port=group.servers[0].port)
    for kind, make in kinds.items():
        values = {f"{kind}/{number:06}": make(number) for number in range(SMALL_VALUES)}
        before = used()
        manager.store_many_distributed(values)
        between = used()
        pipelined(client, "set", values)()
        each = (between - before) / 2 / SMALL_VALUES
        plain = (used() - between) / SMALL_VALUES
        rows.append([kind, f"{each:.0f}", f"{plain:.0f}", f"{each - plain:.0f}"])
    table(
        "Bytes on the nodes for each copy (bar: 120 more)",
        ["value", "ours", "SET", "more"],
        rows,
    )


def near(nodes: list[str], rounds: int) -> None:
    """Compare a hit in the near cache with a hit in the warm tier."""
    with DistributedMemoryManager(0.01, 0.1, 0.1, nodes=nodes, eviction_policy="lru") as manager:
        value = bytes(1024)
        manager.store("here", value, tier="warm")
        manager.store_distributed("there", value)
        manager.retrieve_distributed("there")
        turns = range(20_000)
        spent: dict[str, list[float]] = {"retrieve": [], "retrieve_distributed": []}
        for _ in range(rounds * 3):
            for name, key in (("retrieve", "here"), ("retrieve_distributed", "there")):
                call = getattr(manager, name)
                began = perf_counter()
                for _ in turns:
                    call(key)
                spent[name].append((perf_counter() - began) / len(turns) * 1e9)
        best = {name: statistics.median(times) for name, times in spent.items()}
    more = best["retrieve_distributed"] - best["retrieve"]
    table(
        f"A near hit costs {more:.0f} ns more than a warm hit (bar: 300 ns)",
        ["hit", "ns"],
        [[name, f"{one:.0f}"] for name, one in best.items()],
    )


def fault(group: LocalGroup, *, hang: bool, stores: int, reads: int) -> list[str]:
    """Let a node die or hang in the middle of stores and of reads, and count what went wrong."""
    draw = random.Random(5)
    stored: dict[str, bytes] = {}
    refused = lost = wrong = 0
    longest = 0.0
    victim = group.servers[1]
    strike = victim.pause if hang else victim.kill
    heal = victim.resume if hang else victim.restart

    def timed(act: Callable[..., Any], *args: Any) -> Any:
        nonlocal longest
        began = perf_counter()
        try:
            return act(*args)
        finally:
            longest = max(longest, perf_counter() - began)

    with DistributedMemoryManager(
        0.01, 0.1, 0.1, nodes=group.names, replication_factor=2, near_cache=False
    ) as manager:
        for number in range(stores):
            if number == stores // 2:
                strike()
            key = f"f{number}"
            value = draw.randbytes(1_000_000 if number % 50 == 0 else draw.randrange(10, 20_000))
            try:
                timed(manager.store_distributed, key, value)
                stored[key] = value
            except MemoriesError:
                refused += 1
        heal()
        wait_until_sound(manager)
        keys = draw.choices(list(stored), k=reads)
        for number, key in enumerate(keys):
            if number == reads // 2:
                strike()
            try:
                wrong += timed(manager.retrieve_distributed, key) != stored[key]
            except MemoriesError:
                lost += 1
        heal()
        wait_until_sound(manager)
    return ["hangs" if hang else "is killed", f"{refused} of {stores}", f"{lost} of {reads}",
            str(wrong), f"{longest:.2f} s"]  # fmt: skip


def wait_until_sound(manager: DistributedMemoryManager) -> None:
    """Wait until a node that came back is up to date."""
    began = perf_counter()
    while not all(state["up_to_date"] for state in manager.get_node_status().values()):
        if perf_counter() - began > 60:
            raise TimeoutError("a node that came back is not up to date after a minute")
        threading.Event().wait(0.1)


def main() -> None:
    """Run every part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reads", type=int, default=10_000)
    parser.add_argument("--only", choices=["large", "small", "cluster", "memory", "near", "faults"])
    given = parser.parse_args()
    print(f"{machine()}; three servers of Valkey on this machine")
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalGroup(Path(folder), 3) as group,
    ):
        with DistributedMemoryManager(
            0.01, 0.1, 0.1, nodes=group.names, replication_factor=2, near_cache=False
        ) as manager:
            if given.only in (None, "large"):
                large(group, manager, given.mb * 10**6, given.rounds)
            if given.only in (None, "large"):
                large(group, manager, 8 * 10**6, 5 * given.rounds)
            if given.only in (None, "small"):
                small("Plain", redis.Redis(port=group.servers[0].port), manager, given.rounds)
            if given.only in (None, "memory"):
                memory(group, manager)
        if given.only in (None, "cluster"):
            small_on_cluster(Path(folder), given.rounds)
        if given.only in (None, "near"):
            near(group.names, given.rounds)
        if given.only in (None, "faults"):
            rows = [
                fault(group, hang=hang, stores=1000, reads=given.reads) for hang in (False, True)
            ]
            table(
                "A node of three fails in the middle, values of 1 MB and less "
                "(bars: 0 lost, 0 wrong, no call longer than 2 s)",
                ["one node", "stores refused", "reads failed", "wrong", "longest call"],
                rows,
            )


if __name__ == "__main__":
    main()
