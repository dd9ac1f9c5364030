"""Lets a server stall for more than a second, as on a busy machine, before its clients give it up.

A server that has stalled counts as failed after a sixth of a second. Beside one that a test has
stopped, two of three then seem to fail. Run as a program, it runs another one with these limits.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator
from importlib import import_module

import pytest

from memories.cluster.client.connection import Connection
from memories.cluster.valkey_cluster import write

# In `memories.cluster`. The first ones are what a call loses by a node that hangs, once or twice.
LIMITS = {
    "client.latency.HEDGE_SECONDS": 1.6,
    "client.fanout.HEDGE_SECONDS": 1.6,
    "client.quick_round.HEDGE_SECONDS": 1.6,
    "client.latency.CONNECT_SECONDS": 2.5,
    "client.latency.PATIENCE_SECONDS": 2.5,
    "client.fanout.PATIENCE_SECONDS": 2.5,
    "client.opening._LATE_SECONDS": 2.5,
    "valkey_cluster.redundancy._ASK_SECONDS": 2.0,
    "valkey_cluster.redundancy._VALID_SECONDS": 10.0,
    "valkey_cluster.read.READ_SECONDS": 20.0,
    "valkey_cluster.write.WRITE_SECONDS": 30.0,
    "valkey_cluster.chunks.WRITE_SECONDS": 30.0,
    "valkey_cluster.chunks._READ_SECONDS": 20.0,
    "valkey_cluster.write.WAIT_SECONDS": 2.0,
}
# Of a connection that is opened without limits.
CONNECTION = {"connect_seconds": 2.5, "call_seconds": 2.5}


@pytest.fixture(autouse=True)
def patient_clients(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Raise the limits during a test.

    Tests of the limits themselves have the mark `usual_limits`, or `usual_limits("HEDGE")` where
    only some of them matter.
    """
    mark = request.node.get_closest_marker("usual_limits")
    kept = () if mark is None else mark.args or ("SECONDS",)
    for name, seconds in LIMITS.items():
        if not any(word in name for word in kept):
            monkeypatch.setattr(f"memories.cluster.{name}", seconds)
    if "SECONDS" not in kept:
        for name, seconds in CONNECTION.items():
            monkeypatch.setitem(Connection.__init__.__kwdefaults__, name, seconds)
    write._encoded_wait.cache_clear()  # It holds one of them.
    yield
    write._encoded_wait.cache_clear()


def run_patiently(program: str) -> None:
    """Run a program in this process, which does nothing else."""
    for name, seconds in LIMITS.items():
        module, _, constant = f"memories.cluster.{name}".rpartition(".")
        setattr(import_module(module), constant, seconds)
    Connection.__init__.__kwdefaults__.update(CONNECTION)
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    run_patiently(sys.argv[1])
