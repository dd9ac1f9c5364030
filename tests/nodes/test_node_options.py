"""What operators set on servers and clients: TLS, limits of connections, ACLs, names of nodes."""

from __future__ import annotations

import os
import pty
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from cryptography.hazmat.primitives import serialization
from tests.support.nodes.certificates import Certificates
from tests.support.nodes.proxy import NodeProxy
from tests.support.waiting import until

from memories import DistributedMemoryManager
from memories.cluster.client.address import NodeAddress
from memories.cluster.client.pool import ConnectionPool
from memories.cluster.local import LocalGroup, LocalServer
from memories.errors import InvalidOptionError, UnavailableError

pytestmark = pytest.mark.server


def works(nodes: list[str], **options: object) -> None:
    """Check that a manager over these nodes stores and reads."""
    options = {"replication_factor": 1, "near_cache": False, "migration": False} | options
    with DistributedMemoryManager("5MB", "5MB", "5MB", nodes=nodes, **options) as manager:  # type: ignore[arg-type]
        manager.store_distributed("key", b"value" * 100_000)
        assert b"value" * 100_000 == manager.retrieve_distributed("key")


def test_tls_is_chosen_in_every_way_that_people_know(
    tls_node: NodeProxy, certs: Certificates
) -> None:
    """As an option of all nodes: a context, files by redis-py's names, or both in the URL."""
    trusted = certs.file("ca.pem")
    works([tls_node.name], node_options={"tls": ssl.create_default_context(cafile=trusted)})
    works([tls_node.name], node_options={"tls": True, "ssl_ca_certs": trusted})
    works([tls_node.name], node_options={"ssl_ca_certs": trusted})
    works([tls_node.name], node_options={"ssl": True, "ssl_cert_reqs": "none"})
    works([f"rediss://{tls_node.name}"], node_options={"ssl_ca_certs": trusted})
    with pytest.raises(UnavailableError, match="TLS"):
        works([tls_node.name], node_options={"tls": True})


def test_a_key_with_a_pass_phrase_never_prompts(
    node: LocalServer, certs: Certificates, in_front: Callable[..., NodeProxy], tmp_path: Path
) -> None:
    """A service without a terminal would hang for ever, and one with a terminal would, too."""
    proxy = in_front(node.port, certs.server_context(ask_client=True))
    key = serialization.load_pem_private_key(Path(certs.file("client.key")).read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"open sesame"),
        )
    )
    options = {
        "ssl_ca_certs": certs.file("ca.pem"),
        "ssl_certfile": certs.file("client.pem"),
        "ssl_keyfile": str(locked),
    }
    works([proxy.name], node_options=options | {"ssl_password": "open sesame"})
    child = (
        "from memories.cluster.client.address import NodeAddress\n"
        "from memories.cluster.client.connection import Connection\n"
        f"Connection(NodeAddress.parse({proxy.name!r}, **{options!r}))\n"
    )
    terminal, other = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", child], stdin=other, stdout=other, stderr=subprocess.PIPE, text=True
    ) as process:
        _, errors = process.communicate(timeout=240)
    os.close(terminal)
    os.close(other)
    assert "InvalidOptionError" in errors
    assert "ssl_password" in errors


def test_a_server_with_too_many_clients_says_so(node: LocalServer) -> None:
    """And not `Broken pipe`."""
    node.call("CONFIG", "SET", "maxclients", "1")
    with redis.Redis(port=node.port) as holder:
        holder.ping()
        for _ in range(5):
            with pytest.raises(UnavailableError, match="maxclients"):
                works([node.name])


def test_a_pool_is_bounded_and_waits(node: LocalServer) -> None:
    """Many threads share few connections, and one that gets none gets the reason."""
    address = NodeAddress.parse(node.name, max_connections=3, timeout=2)
    most = 0

    def work() -> None:
        nonlocal most
        for _ in range(20):
            with pool.acquire() as connection:
                clients = connection.call("INFO", "clients")
            most = max(most, int(clients.split(b"connected_clients:")[1].split(b"\r")[0]))

    with ConnectionPool(address) as pool:
        threads = [threading.Thread(target=work) for _ in range(12)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert most <= 3
        held = [pool.take() for _ in range(3)]
        began = time.monotonic()
        with pytest.raises(UnavailableError, match="max_connections"):
            pool.take()
        assert time.monotonic() - began > 1.9
        for one in held:
            pool.give(one)
        pool.give(pool.take())


def test_a_server_without_tracking_is_asked_again_less_and_less(
    plain_nodes: LocalGroup,
) -> None:
    """It will not learn it: four attempts a second for ever would fill its log."""
    user = ("ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "-client|tracking")
    for server in plain_nodes.servers:
        server.call(*user)
    with DistributedMemoryManager(
        "5MB", "5MB", "5MB", nodes=plain_nodes.names, node_options={"user": "app", "password": "pw"}
    ) as manager:
        manager.store_distributed("key", 1)
        time.sleep(2.6)
        assert 1 == manager.retrieve_distributed("key")
    with redis.Redis(port=plain_nodes.servers[0].port) as client:
        refused = client.info("commandstats")["cmdstat_client|tracking"]["rejected_calls"]
    assert 1 <= refused <= 2


def test_one_server_under_two_names_is_refused(plain_nodes: LocalGroup) -> None:
    """Two copies on one server are one copy."""
    first, second, _ = plain_nodes.servers
    with pytest.raises(InvalidOptionError, match="the same server"):
        works([first.name, f"localhost:{first.port}", second.name], replication_factor=2)


def test_members_are_reached_by_the_names_of_each_manager(
    plain_nodes: LocalGroup, in_front: Callable[..., NodeProxy]
) -> None:
    """Through a tunnel or a container's network the same servers have other addresses."""
    works(plain_nodes.names, replication_factor=2)
    proxies = [in_front(server.port) for server in reversed(plain_nodes.servers)]
    names = [proxy.name for proxy in proxies]
    with DistributedMemoryManager(
        "5MB", "5MB", "5MB", nodes=names, near_cache=False, migration=False, prefetch="off"
    ) as manager:
        assert b"value" * 100_000 == manager.retrieve_distributed("key")
        manager.store_distributed("key", "new")
        assert set(names) == set(manager.get_node_status())
        reached = {node.address.name for node in manager._service.nodes()}  # type: ignore[attr-defined]
        assert set(names) == reached
        plain_nodes.servers[0].restart()
        until(lambda: all(s["up_to_date"] for s in manager.get_node_status().values()))
    with DistributedMemoryManager(
        "5MB",
        "5MB",
        "5MB",
        nodes=plain_nodes.names,
        near_cache=False,
        migration=False,
        prefetch="off",
    ) as manager:
        assert "new" == manager.retrieve_distributed("key")
        assert set(plain_nodes.names) == set(manager.get_node_status())


def test_a_cluster_behind_a_tunnel_is_reached_by_remapped_addresses(
    cluster_nodes: LocalGroup, in_front: Callable[..., NodeProxy]
) -> None:
    """Its nodes announce addresses that only they can reach."""
    proxies = {server.port: in_front(server.port) for server in cluster_nodes.servers}

    def remap(announced: tuple[str, int]) -> tuple[str, int]:
        host, port = announced
        return host, proxies[port].own_port if port in proxies else port

    with DistributedMemoryManager(
        "5MB", "5MB", "5MB", nodes=[proxies[cluster_nodes.servers[0].port].name],
        node_options={"address_remap": remap}, near_cache=False, migration=False, prefetch="off",
    ) as manager:  # fmt: skip
        manager.store_many_distributed({f"key{number}": number for number in range(100)})
        assert 99 == manager.retrieve_distributed("key99")
        names = {proxy.name for proxy in proxies.values()}
        assert names == set(manager.get_node_status())
        assert [] == manager.repair().unreadable
    assert all(proxy.connections for proxy in proxies.values())


def test_a_unix_socket_member_keeps_its_credentials(tmp_path: Path) -> None:
    """Another manager that finds it in the member list must log in to it as well."""
    sockets = [f"/tmp/memories-{os.getpid()}-{number}.sock" for number in range(3)]
    with ExitStack() as stack:
        for number, path in enumerate(sockets):
            folder = tmp_path / str(number)
            folder.mkdir()
            arguments = ("--unixsocket", path)
            stack.enter_context(LocalServer(folder, arguments=arguments, password="pw"))
        nodes = [f"unix://{path}" for path in sockets]
        works(nodes, replication_factor=2, node_options={"password": "pw"})
        works(nodes[:2], replication_factor=2, node_options={"password": "pw"})


def test_a_bad_address_does_not_stop_the_other_nodes(plain_nodes: LocalGroup) -> None:
    """A name that no resolver knows, beside nodes that are enough."""
    names = plain_nodes.names
    works(names, replication_factor=2)
    works([*names, "no.such.host.invalid:6379"], replication_factor=2)
    works(["x" * 80 + ".invalid", *names], replication_factor=2)


def test_a_replica_in_the_list_is_left_out(plain_nodes: LocalGroup, tmp_path: Path) -> None:
    """It refuses writes, and its values are another server's."""
    first, second, third = plain_nodes.servers
    third.call("REPLICAOF", "127.0.0.1", first.port)
    works(plain_nodes.names, replication_factor=2)
    third.call("REPLICAOF", "NO", "ONE")
    del second


def test_a_new_pool_works_after_the_server_has_restarted(node: LocalServer) -> None:
    """Idle connections of the process before are not used."""
    with ConnectionPool(NodeAddress.parse(node.name)) as pool:
        pool.give(pool.take())
        node.restart()
        with pool.acquire() as connection:
            assert b"PONG" == connection.call("PING")
