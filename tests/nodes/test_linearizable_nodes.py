"""One key, many clients in two managers, and faults all the while: the history is a register's."""

from __future__ import annotations

import itertools
import random
import threading
import time

import pytest
from tests.nodes.test_replicas import manager_of, up_to_date
from tests.support.nodes.linearizability import Recorder
from tests.support.waiting import until

from memories import DistributedMemoryManager, UnavailableError
from memories.cluster.local import LocalGroup

pytestmark = pytest.mark.server


def campaign(group: LocalGroup, seconds: float, seed: int) -> Recorder:
    """Run clients that read and write one key while one node after the other fails."""
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

    with manager_of(group.names) as one, manager_of(group.names) as two:
        clients = [
            threading.Thread(target=use, args=(manager, f"{name}{number}"))
            for name, manager in (("a", one), ("b", two))
            for number in range(2)
        ]
        for client in clients:
            client.start()
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
            until(lambda: up_to_date(one) and up_to_date(two), 30)
        stop.set()
        for client in clients:
            client.join()
    assert [] == faults
    return recorder


def test_the_history_of_a_key_under_faults_is_linearizable(plain_nodes: LocalGroup) -> None:
    """Linearizable per key: every later read, by any client, returns an acknowledged write."""
    recorder = campaign(plain_nodes, 5.0, 1)
    recorder.check()
    answered = len(recorder.history)
    assert answered > 100
    assert recorder.failed < answered / 10
    assert recorder.longest_seconds < 2.0


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(20))
def test_histories_under_faults_are_linearizable(plain_nodes: LocalGroup, seed: int) -> None:
    """The same for minutes, with other faults each time."""
    campaign(plain_nodes, 30.0, seed).check()
