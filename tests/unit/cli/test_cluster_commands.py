"""`memories cluster`: local nodes for one command and no apt, and a look at any nodes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from memories import DistributedMemoryManager
from memories.cluster.client.address import NodeAddress
from memories.cluster.client.connection import Connection
from memories.cluster.local.persistent import find_group, runtime_folder

from .conftest import Run

pytestmark = pytest.mark.server
TIERS = ("10MB", "10MB", "10MB")


@pytest.fixture(autouse=True)
def own_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> Iterator[None]:
    """Keep the servers of a test apart from the user's, and end them whatever happens."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    yield
    for folder in runtime_folder().iterdir():
        run("cluster", "down", "--name", folder.name)


def test_servers_started_by_one_command_serve_a_manager_and_are_ended_by_another(run: Run) -> None:
    """The whole sequence of a first experiment."""
    up = run("cluster", "up", "--nodes", 3, "--memory", "50MB", "--json")
    assert 0 == up.exit_code, up.stderr
    nodes = json.loads(up.stdout)["nodes"]
    assert 3 == len(nodes)
    with DistributedMemoryManager(*TIERS, nodes=nodes, replication_factor=2) as manager:
        manager.store_distributed("k", [1, 2])
        assert [1, 2] == manager.retrieve_distributed("k")
    assert 1 == json.loads(run("cluster", "repair", "--json").stdout)["keys"]
    states = json.loads(run("cluster", "status", "--json").stdout)
    assert sorted(nodes) == sorted(states)
    assert {50_000_000} == {state["total_bytes"] for state in states.values()}
    assert {"name": "default", "ended": 3} == json.loads(run("cluster", "down", "--json").stdout)
    gone = run("cluster", "status", *nodes)
    assert 5 == gone.exit_code
    assert 3 == gone.stdout.count("offline")


def test_looking_at_nodes_makes_no_cluster_of_them(run: Run) -> None:
    """The first status or repair must not decide the number of copies."""
    nodes = run("cluster", "up").stdout.split()
    assert 0 == run("cluster", "status").exit_code
    refused = run("cluster", "repair")
    assert (1, True) == (refused.exit_code, "nothing has been stored" in refused.stderr)
    with DistributedMemoryManager(*TIERS, nodes=nodes, replication_factor=3) as manager:
        manager.store_distributed("k", 1)


def test_an_unfinished_change_is_shown_and_finished_or_taken_back(run: Run) -> None:
    """The program that began it is gone, and an operator has only this command."""
    *names, spare = run("cluster", "up", "--nodes", 4).stdout.split()

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    for options, members in ((("--abandon",), names), ((), [*names, spare])):
        with DistributedMemoryManager(*TIERS, nodes=names) as manager:
            manager.store_distributed("k", 1)
            with pytest.raises(KeyboardInterrupt):
                manager.add_node(spare, stop)
        shown = run("cluster", "status", *names).stdout
        assert f"unfinished ({spare} is joining)" in shown and "--abandon" in shown
        assert 0 == run("cluster", "repair", *options, *names).exit_code
        states = json.loads(run("cluster", "status", "--json", *names).stdout)
        assert dict.fromkeys(members, "member") == {n: s["membership"] for n, s in states.items()}
        if spare not in members:
            with Connection(NodeAddress.parse(spare)) as connection:
                connection.call("FLUSHALL")


def test_a_name_is_up_once(run: Run) -> None:
    """Two groups under one name could not both be taken down."""
    assert 0 == run("cluster", "up", "--nodes", 1).exit_code
    again = run("cluster", "up", "--nodes", 1)
    assert (5, True) == (again.exit_code, "down" in again.stderr)
    assert 0 == run("cluster", "up", "--nodes", 1, "--name", "other").exit_code
    assert 0 == run("cluster", "down").exit_code
    assert 1 == run("cluster", "down").exit_code


def test_what_is_no_name_and_what_is_no_cluster_is_said(run: Run) -> None:
    """A name becomes a folder."""
    assert 2 == run("cluster", "up", "--name", "../x").exit_code
    assert 2 == run("cluster", "up", "--nodes", 2, "--cluster").exit_code
    assert 2 == run("cluster", "status", "no de").exit_code


def test_a_start_that_was_killed_leaves_nothing_that_down_cannot_remove(run: Run) -> None:
    """Between the folder and the first server there is a moment."""
    (runtime_folder() / "default").mkdir()
    assert 5 == run("cluster", "up").exit_code
    assert 0 == run("cluster", "down").exit_code
    assert find_group("default") is None


def test_a_folder_that_others_may_write_to_is_refused(run: Run) -> None:
    """The file in it says which processes are to be killed."""
    folder = runtime_folder()
    folder.chmod(0o777)
    refused = run("cluster", "up")
    folder.chmod(0o700)
    assert (1, True) == (refused.exit_code, "other users own" in refused.stderr)
    folder.rmdir()
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    folder.symlink_to(elsewhere)
    assert 1 == run("cluster", "up").exit_code
    folder.unlink()
    assert [] == list(elsewhere.iterdir())
