"""`memories cluster`: local nodes for one command and no apt, and a look at any nodes."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.nodes.patience import patient_clients  # noqa: F401

from memories import DistributedMemoryManager
from memories.cluster.client.address import NodeAddress
from memories.cluster.client.connection import Connection
from memories.cluster.client.resp import ReplyError
from memories.cluster.connect import check_nodes
from memories.cluster.local import LocalGroup
from memories.cluster.local.persistent import find_group, known_password, runtime_folder

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


def test_local_nodes_have_a_password_that_only_their_user_can_read(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other users of the machine can connect to the port, and could read and change everything."""
    nodes = run("cluster", "up").stdout.split()
    for node in nodes:
        host, _, port = node.partition(":")
        with pytest.raises(ReplyError, match="NOAUTH"):
            Connection(NodeAddress(host, int(port))).call("PING")
    group = find_group("default")
    assert group is not None
    assert group.password is not None
    assert group.password not in repr(group)
    assert group.password not in run("cluster", "status").output
    for server in group.servers:
        assert group.password not in Path(f"/proc/{server.pid}/cmdline").read_text()
    files = [path for path in runtime_folder().rglob("*") if path.is_file()]
    secret = [path for path in files if group.password.encode() in path.read_bytes()]
    assert 4 == len(secret)  # One of each server, and the list.
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in secret}
    assert {0o700} == {stat.S_IMODE(path.stat().st_mode) for path in runtime_folder().iterdir()}
    local = [node.replace("127.0.0.1", "localhost") for node in nodes]
    for names in (nodes, nodes[:1], local):  # They find the password by themselves.
        with DistributedMemoryManager(*TIERS, nodes=names, replication_factor=2) as manager:
            manager.store_distributed("k", 1)
            assert 3 == len(manager.get_node_status())
    assert 0 == run("doctor", "--node", nodes[0]).exit_code
    assert known_password(nodes[0]) == group.password
    (runtime_folder() / "default" / "servers.json").chmod(0o644)
    folder = runtime_folder()
    folder.chmod(0o755)
    assert known_password(nodes[0]) is None  # Others could have written it.
    folder.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "elsewhere"))
    assert known_password(nodes[0]) is None
    assert not (tmp_path / "elsewhere").exists()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))


def test_the_password_is_not_sent_to_what_took_the_port(run: Run) -> None:
    """The list of a group may be older than the process that listens there."""
    nodes = run("cluster", "up", "--nodes", 1).stdout.split()
    group = find_group("default")
    assert group is not None
    group.servers[0].process.stop()
    assert known_password(nodes[0]) is None


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
            with Connection(check_nodes([spare], {})[0]) as connection:
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


def test_a_primary_that_lacks_a_replica_is_shown(run: Run, tmp_path: Path) -> None:
    """Its newest values are lost if it fails now; one node is enough to see the others."""
    with LocalGroup(tmp_path, 3, replicas=1) as group:
        primary, replica = group.servers[0], group.servers[3]
        assert "lacks" not in run("cluster", "status", primary.name).stdout
        replica.kill()
        shown = run("cluster", "status", primary.name)
        assert f"{primary.name} lacks 1 replica" in shown.stdout
        states = json.loads(run("cluster", "status", primary.name, "--json").stdout)
        assert 6 == len(states)
        assert 1 == states[primary.name]["missing_copies"]
        assert {0} == {states[one.name]["missing_copies"] for one in group.servers[1:3]}
