"""One key, many clients in two managers, and faults all the while: the history is a register's."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from tests.nodes.test_members import done
from tests.nodes.test_replicas import manager_of, up_to_date
from tests.support.nodes.linearizability import Recorder
from tests.support.waiting import until

from memories import DistributedMemoryManager, UnavailableError
from memories.cluster.local import LocalGroup

pytestmark = [pytest.mark.server, pytest.mark.timeout(400)]

# Limits against hanging only: on a busy machine a change of members, or a few calls, take long.
PATIENT_SECONDS = 150.0
ENOUGH = 100  # Operations that say something.
Disturb = Callable[[DistributedMemoryManager, DistributedMemoryManager], None]


def recorded(names: list[str], seed: int, disturb: Disturb, copies: int = 2) -> Recorder:
    """Run clients that read and write one key while `disturb(one, two)` lasts."""
    recorder = Recorder((UnavailableError,))
    numbers = itertools.count(1)
    stop = threading.Event()
    faults: list[BaseException] = []

    def use(manager: DistributedMemoryManager, client: str) -> None:
        draw = random.Random(f"{seed} {client}")
        try:
            while not stop.is_set():
                if draw.random() < 0.4:
                    value = next(numbers)
                    recorder.write(value, lambda: manager.store_distributed("key", value), client)  # noqa: B023
                else:
                    recorder.read(lambda: manager.retrieve_distributed("key"), client)
                time.sleep(draw.random() * 0.01)
        except BaseException as error:
            faults.append(error)

    options = {"replication_factor": copies}
    with manager_of(names, **options) as one, manager_of(names, **options) as two:
        clients = [
            threading.Thread(target=use, args=(manager, f"{name}{number}"))
            for name, manager in (("a", one), ("b", two))
            for number in range(2)
        ]
        for client in clients:
            client.start()
        try:
            disturb(one, two)
            until(lambda: faults or len(recorder.history) > ENOUGH, PATIENT_SECONDS)
        finally:
            stop.set()
            for client in clients:
                client.join()
    assert [] == faults
    return recorder


def campaign(group: LocalGroup, seconds: float, seed: int) -> Recorder:
    """Let one node after the other fail, and come back."""

    def disturb(one: DistributedMemoryManager, two: DistributedMemoryManager) -> None:
        draw, end = random.Random(seed), time.monotonic() + seconds
        while time.monotonic() < end:
            server = draw.choice(group.servers)
            fault = draw.choice(["restart", "pause", "cut"])
            if fault == "restart":
                server.restart()
            elif fault == "pause":
                server.pause()
                time.sleep(0.6)
                server.resume()
            else:
                server.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            until(lambda: up_to_date(one) and up_to_date(two), PATIENT_SECONDS)

    return recorded(group.names, seed, disturb)


def replacements(folder: Path, rounds: int, seed: int, count: int = 3, copies: int = 2) -> Recorder:
    """Let nodes die for good, as many as may at a time, and replace them in one of two ways."""
    draw, deaths = random.Random(seed), copies - 1
    with LocalGroup(folder, count + rounds * deaths) as group:
        members, spare = group.servers[:count], group.servers[count:]

        def disturb(one: DistributedMemoryManager, two: DistributedMemoryManager) -> None:
            while spare:
                new = [spare.pop() for _ in range(deaths)]
                dead = [members.pop(draw.randrange(len(members))) for _ in range(deaths)]
                members.extend(new)
                for server in dead:
                    (server.kill if draw.random() < 0.5 else server.pause)()
                time.sleep(draw.random())
                changes = [partial(add, server.name) for server in new]
                changes += [partial(remove, server.name) for server in dead]
                if draw.random() < 0.5:
                    old, names = ([server.name for server in some] for some in (dead, new))
                    changes = [partial(replace, old, names)]
                for change in changes:
                    manager = draw.choice((one, two))
                    until(lambda: done(change, manager), PATIENT_SECONDS)  # noqa: B023
                for server in dead:
                    server.kill()

        return recorded([server.name for server in members], seed, disturb, copies)


def add(name: str, manager: DistributedMemoryManager) -> None:
    """Add a node."""
    manager.add_node(name)


def remove(name: str, manager: DistributedMemoryManager) -> None:
    """Remove a node."""
    manager.remove_node(name)


def replace(old: list[str], new: list[str], manager: DistributedMemoryManager) -> None:
    """Replace nodes by others."""
    manager.replace_node(old, new)


def test_the_history_of_a_key_under_faults_is_linearizable(plain_nodes: LocalGroup) -> None:
    """Linearizable per key: every later read, by any client, returns an acknowledged write."""
    recorder = campaign(plain_nodes, 5.0, 1)
    recorder.check()
    assert recorder.failed < len(recorder.history) / 2
    assert recorder.longest_seconds < 30.0


@pytest.mark.parametrize(
    ("count", "copies", "rounds"),
    [
        pytest.param(3, 2, 2, marks=pytest.mark.torture),
        (4, 2, 1),
        pytest.param(5, 3, 1, marks=pytest.mark.torture),
    ],
)
def test_the_history_of_a_key_while_dead_nodes_are_replaced_is_linearizable(
    tmp_path: Path, count: int, copies: int, rounds: int
) -> None:
    """One is killed, and one hangs and comes to life no more; each change is begun anywhere."""
    recorder = replacements(tmp_path, rounds, 2, count, copies)
    recorder.check()
    assert recorder.failed < len(recorder.history) / 2


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(20))
def test_histories_under_faults_are_linearizable(plain_nodes: LocalGroup, seed: int) -> None:
    """The same for minutes, with other faults each time."""
    campaign(plain_nodes, 30.0, seed).check()


@pytest.mark.torture
@pytest.mark.parametrize(("count", "copies"), [(3, 2), (4, 2), (5, 3)])
@pytest.mark.parametrize("seed", range(20))
def test_histories_under_replacements_are_linearizable(
    tmp_path: Path, seed: int, count: int, copies: int
) -> None:
    """The same with other nodes each time, and eight of them."""
    replacements(tmp_path, 8, seed, count, copies).check()
