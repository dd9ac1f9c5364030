"""Nodes that fail and return in any order, against a plain dict."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from tests.support.values import identical
from tests.support.waiting import until

from memories import DistributedMemoryManager
from memories.cluster.local import LocalGroup

pytestmark = [pytest.mark.server, pytest.mark.timeout(400)]
KEYS = st.sampled_from(["a", "b", "c/{d}", "c/*", "é", "large"])
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=9), st.binary())
SMALL = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.builds(np.arange, st.integers(0, 50)))
LARGE = st.builds(lambda seed: np.full(200_000, seed), st.integers(0, 9))  # In chunks.
VALUES = st.one_of(SMALL, SMALL, SMALL, LARGE)
NODES = st.integers(0, 2)


class NodesMachine(RuleBasedStateMachine):
    """Three servers and two copies: whatever befalls one of them at a time is never seen."""

    group: LocalGroup

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, Any] = {}
        self.failing: tuple[int, str] | None = None

    @initialize(near=st.booleans())
    def open(self, near: bool) -> None:
        for server in self.group.servers:
            server.call("FLUSHALL")
        self.manager = DistributedMemoryManager(
            "5MB",
            "5MB",
            "20MB",
            nodes=self.group.names,
            near_cache=near,
            migration=False,
            prefetch="off",
        )

    @rule(key=KEYS, value=VALUES)
    def store(self, key: str, value: Any) -> None:
        self.manager.store_distributed(key, value)
        self.model[key] = value

    @rule(values=st.dictionaries(KEYS, SMALL, max_size=4))
    def store_many(self, values: dict[str, Any]) -> None:
        self.manager.store_many_distributed(values)
        self.model.update(values)

    @rule(key=KEYS)
    def retrieve(self, key: str) -> None:
        if key in self.model:
            assert identical(self.model[key], self.manager.retrieve_distributed(key))
        else:
            with pytest.raises(KeyError):
                self.manager.retrieve_distributed(key)

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        if key in self.model:
            self.manager.delete_distributed(key)
            del self.model[key]
        else:
            with pytest.raises(KeyError):
                self.manager.delete_distributed(key)

    @rule(prefix=st.sampled_from(["", "c/", "c/*", "é", "none"]))
    def scan(self, prefix: str) -> None:
        expected = sorted((key for key in self.model if key.startswith(prefix)), key=str.encode)
        assert expected == list(self.manager.scan_distributed(prefix))

    @rule()
    def repair(self) -> None:
        if self.failing is None:
            assert [] == self.manager.repair().unreadable

    @precondition(lambda self: self.failing is None)
    @rule(node=NODES, fault=st.sampled_from(["kill", "pause", "full"]))
    def fail(self, node: int, fault: str) -> None:
        server = self.group.servers[node]
        if fault == "full":
            server.call("CONFIG", "SET", "maxmemory", "1")
        else:
            getattr(server, fault)()
        self.failing = node, fault

    @precondition(lambda self: self.failing is not None)
    @rule()
    def heal(self) -> None:
        assert self.failing is not None
        server, fault = self.group.servers[self.failing[0]], self.failing[1]
        if fault == "kill":
            server.restart()
        elif fault == "pause":
            server.resume()
        else:
            server.call("CONFIG", "SET", "maxmemory", "0")
        self.failing = None
        # The next fault may come only when this one is over: two at a time are beyond the promise.
        until(lambda: all(one["up_to_date"] for one in self.manager.get_node_status().values()))

    def teardown(self) -> None:
        if self.failing is not None:
            self.heal()
        if hasattr(self, "manager"):
            for key, value in self.model.items():
                assert identical(value, self.manager.retrieve_distributed(key))
            self.manager.cleanup()


def run(examples: int, steps: int) -> None:
    """Run the machine over servers that all of its runs share."""
    with tempfile.TemporaryDirectory() as folder, LocalGroup(Path(folder), 3) as group:
        NodesMachine.group = group
        limits = settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        from hypothesis.stateful import run_state_machine_as_test

        run_state_machine_as_test(NodesMachine, settings=limits)


def test_failures_and_returns_of_nodes_have_no_visible_effect() -> None:
    """The one property that users rely on, over random histories."""
    run(examples=3, steps=20)


@pytest.mark.torture
def test_failures_and_returns_have_no_visible_effect_for_long() -> None:
    """The same, many times."""
    run(examples=100, steps=40)
