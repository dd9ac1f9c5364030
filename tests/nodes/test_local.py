"""The local servers are real, complete once they are started, and stopped at the end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from memories.cluster.local import LocalGroup, LocalServer, local_nodes
from memories.cluster.local.process import ServerProcess
from memories.errors import UnavailableError

pytestmark = pytest.mark.server


def test_nodes_answer_inside_the_block_and_are_stopped_after_it() -> None:
    """An example that starts servers must not leave any running."""
    with local_nodes(2) as names:
        pids = []
        for name in names:
            with redis.Redis(port=int(name.split(":")[1])) as client:
                pids.append(client.info("server")["process_id"])
    for pid in pids:  # Another process may have their ports by now.
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_cluster_is_complete_once_it_is_started(cluster_nodes: LocalGroup) -> None:
    """Every slot is served, and every primary has a replica that is in step."""
    first = cluster_nodes.servers[0]
    with redis.RedisCluster(host="127.0.0.1", port=first.port) as client:
        for number in range(100):
            client.set(f"k{number}", number)
            assert 1 == client.wait(1, 30_000, target_nodes=client.get_node_from_key(f"k{number}"))


def test_a_server_that_restarts_is_empty_and_the_same_port(node: LocalServer) -> None:
    """Row 29: a node that comes back without its memory answers nil to everything."""
    node.call("SET", "k", "v")
    port, pid = node.port, node.pid
    node.restart()
    assert (port, None) == (node.port, node.call("GET", "k"))
    assert pid != node.pid


def test_a_port_in_use_is_an_error_and_not_another_server(tmp_path: Path) -> None:
    """The process that answers there is not the one that was started."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    with LocalServer(tmp_path / "other") as other:
        server = LocalServer(tmp_path / "one", port=other.port)
        with pytest.raises(UnavailableError, match="in use"):
            server.start()


def test_only_the_process_that_was_started_is_stopped() -> None:
    """A number is given to another process sooner or later, perhaps to one that matters."""
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        ServerProcess(bystander.pid, "some other start").stop()
        assert bystander.poll() is None
        itself = ServerProcess.of(bystander.pid)
        assert itself.alive()
        itself.stop(gracefully=False)
        assert not itself.alive()
    finally:
        bystander.kill()
        bystander.communicate()


HELD_BY_A_THREAD = """
import ctypes, platform, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
print("ready", flush=True)
ctypes.CDLL(None).syscall(60 if platform.machine() == "x86_64" else 93, 0)  # The first one ends.
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are not shown here")
def test_a_process_has_ended_when_all_of_its_threads_have() -> None:
    """A server killed on a busy machine still held its port, and could not be restarted."""
    command = [sys.executable, "-c", HELD_BY_A_THREAD]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert b"ready\n" == child.stdout.readline()
            process, deadline = ServerProcess.of(child.pid), time.monotonic() + 30
            while ") Z " not in Path(f"/proc/{child.pid}/stat").read_text():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert process.alive()
            process.stop(gracefully=False)
            assert not process.alive()
        finally:
            child.kill()
