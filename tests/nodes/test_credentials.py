"""Passwords go to nodes that the caller named, or for which a key of the caller's vouches.

Who can write to one node can write a member list, or have a Cluster announce any address. A real
socket listens there, and records what it receives.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from tests.support.waiting import until

from memories import DistributedMemoryManager, UnavailableError
from memories.cluster.client.address import NodeAddress
from memories.cluster.local import LocalGroup, LocalServer
from memories.cluster.quorum.vouchers import VOUCHERS_KEY
from memories.frames.signing import Keyring

PASSWORD = "hunter2-of-the-caller"
SIZES = ("1 MB", "1 MB", "10 MB")
MEMBERS = b"m:members"


class Listener:
    """A node of an adversary: it accepts whatever is sent, and records it."""

    def __init__(self) -> None:
        self.received = bytearray()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.name = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(65_536):
                self.received += data
                connection.sendall(b"+OK\r\n" * data.count(b"*"))


@pytest.fixture
def evil() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[LocalGroup]:
    """Three plain servers with a password."""
    folder = tmp_path / "nodes"
    folder.mkdir()
    with LocalGroup(folder, 3, password=PASSWORD) as group:
        yield group


def opened(names: list[str], copies: int = 1, **options: object) -> DistributedMemoryManager:
    return DistributedMemoryManager(
        *SIZES, nodes=names, replication_factor=copies, node_options={"password": PASSWORD},
        migration=False, prefetch="off", **options,
    )  # fmt: skip


def add_to_list(server: LocalServer, name: str) -> None:
    """Write another member into the list on a node, as anyone who may write there can."""
    text = server.call("GET", MEMBERS)
    assert isinstance(text, bytes)
    members = msgspec.json.decode(text)
    members |= {"nodes": [*members["nodes"], name], "epoch": members["epoch"] + 1}
    server.call("SET", MEMBERS, msgspec.json.encode(members))


def test_a_member_list_sends_the_password_nowhere(nodes: LocalGroup, evil: Listener) -> None:
    """Neither when a manager is opened, nor when an open one reads a newer list."""
    with opened(nodes.names[:2]) as manager:
        manager.store_distributed("key", b"value")
        for server in nodes.servers[:2]:
            add_to_list(server, evil.name)
        manager.repair()
        state = manager.get_node_status()[evil.name]
        assert "is a member by the list on the nodes only" in state["last_error"]
        assert not evil.received
    with pytest.raises(UnavailableError, match="name it in nodes="):
        opened(nodes.names[:2])
    assert not evil.received
    with suppress(UnavailableError):
        opened([*nodes.names[:2], evil.name]).cleanup()
    assert PASSWORD.encode() in evil.received  # Here the caller named it.


def test_a_forged_or_copied_voucher_counts_for_nothing(nodes: LocalGroup, evil: Listener) -> None:
    """A voucher is for one address, one password and by one key."""
    first = nodes.servers[0]
    with opened(nodes.names[:1]):
        text = first.call("GET", VOUCHERS_KEY)
    assert isinstance(text, bytes)
    (signed,) = msgspec.msgpack.decode(text).values()
    add_to_list(first, evil.name)
    for forged in (
        signed,
        dict.fromkeys(signed, b""),
        {"": b"x"},
        {f"{n}": b"" for n in range(999)},
    ):
        first.call("SET", VOUCHERS_KEY, msgspec.msgpack.encode({evil.name: forged}))
        with pytest.raises(UnavailableError, match="by the list on the nodes only"):
            opened(nodes.names[:1])
    first.call("SET", VOUCHERS_KEY, b"\xc1damaged")
    with pytest.raises(UnavailableError, match="by the list on the nodes only"):
        opened(nodes.names[:1])
    assert not evil.received


def test_members_are_found_by_the_vouchers_of_their_user(nodes: LocalGroup) -> None:
    """A manager that names one node finds those that another one of its user has named."""
    with opened(nodes.names[:2]) as manager:
        manager.add_node(f"redis://:{PASSWORD}@{nodes.names[2]}")
        manager.store_distributed("key", b"value")
        with opened(nodes.names[:1]) as other:
            assert b"value" == other.retrieve_distributed("key")
            assert all(state["online"] for state in other.get_node_status().values())
            assert 3 == len(other.get_node_status())


def test_the_vouchers_of_a_trusted_user_count(
    nodes: LocalGroup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user trusts the key of the first, or names the nodes."""
    with opened(nodes.names):
        key = Keyring().export()
    monkeypatch.setenv("MEMORIES_KEY_FILE", str(tmp_path / "other" / "keys"))
    with pytest.raises(UnavailableError, match="by the list on the nodes only"):
        opened(nodes.names[:1])
    with opened(nodes.names[:1], trusted_keys=[key]) as manager:
        manager.store_distributed("key", b"value")
    with opened(nodes.names) as manager:
        assert b"value" == manager.retrieve_distributed("key")
    with opened(nodes.names[:1]):
        pass  # The second user has named all of them, and so vouched for them.


def test_without_a_password_there_is_nothing_to_withhold(tmp_path: Path) -> None:
    """Members are found by the list alone, and no key is made for it."""
    (tmp_path / "nodes").mkdir()
    with LocalGroup(tmp_path / "nodes", 2) as group:
        with DistributedMemoryManager(*SIZES, nodes=group.names, replication_factor=1) as manager:
            manager.store_distributed("key", b"value")
        with DistributedMemoryManager(
            *SIZES, nodes=group.names[:1], replication_factor=1
        ) as manager:
            assert b"value" == manager.retrieve_distributed("key")
        assert group.servers[0].call("GET", VOUCHERS_KEY) is None


def test_a_refused_address_shows_and_keeps_no_secret() -> None:
    """No later code can send what it does not have."""
    refused = NodeAddress.parse("redis://user:secret@host:1").refused("no")
    assert not refused.secrets
    assert "secret" not in repr(refused)


def test_one_node_of_a_cluster_sends_the_password_nowhere(tmp_path: Path, evil: Listener) -> None:
    """A node that announces or redirects to an address that no other one knows is not believed."""
    (tmp_path / "cluster").mkdir()
    with LocalGroup(tmp_path / "cluster", 3, replicas=0, password=PASSWORD) as group:
        liar = group.servers[0]
        with opened(group.names) as manager:
            manager.store_distributed("key", b"value")
            # What a client sees of one node: a slot was moved to an address of the adversary.
            liar.call("CLUSTER", "MEET", "127.0.0.1", evil.name.rpartition(":")[2])
            shards = manager._service.shards  # type: ignore[attr-defined]
            shards.refresh()
            shards.refresh()
            assert evil.name not in shards._announced
            with pytest.raises(UnavailableError, match="not known to most nodes"):
                shards.node(evil.name).call("PING")
            assert b"value" == manager.retrieve_distributed("key")
        with opened(group.names[:1]) as manager:  # All others are found by the one that is named.
            assert b"value" == manager.retrieve_distributed("key")
            assert {*group.names} == {*manager.get_node_status()}
    assert PASSWORD.encode() not in evil.received


def test_a_node_that_joins_a_cluster_is_found(tmp_path: Path) -> None:
    """It is announced by those that were known, gets slots, and the password."""
    (tmp_path / "cluster").mkdir()
    (tmp_path / "new").mkdir()
    with (
        LocalGroup(tmp_path / "cluster", 3, replicas=0, password=PASSWORD) as group,
        opened(group.names[:1]) as manager,
        LocalServer(tmp_path / "new", clustered=True, password=PASSWORD) as new,
    ):
        keys = {f"key/{number}": number for number in range(200)}
        manager.store_many_distributed(keys)
        new.call("CLUSTER", "MEET", "127.0.0.1", group.servers[0].port)
        everyone = [*group.servers, new]
        until(lambda: all(str(new.port).encode() in known(one) for one in everyone))
        until(lambda: all(len(known(one).splitlines()) == 4 for one in everyone))
        until(lambda: b"cluster_state:ok" in new.call("CLUSTER", "INFO"))  # type: ignore[operator]
        new_id = new.call("CLUSTER", "MYID")
        old = group.servers[0]
        old_id = old.call("CLUSTER", "MYID")
        for slot in range(40):
            new.call("CLUSTER", "SETSLOT", slot, "IMPORTING", old_id)
            old.call("CLUSTER", "SETSLOT", slot, "MIGRATING", new_id)
            while names := old.call("CLUSTER", "GETKEYSINSLOT", slot, 10):
                for name in names:  # type: ignore[attr-defined]
                    old.call("MIGRATE", "127.0.0.1", new.port, name, 0, 5000, "AUTH", PASSWORD)
        assert keys == {key: manager.retrieve_distributed(key) for key in keys}  # By ASK.
        manager.store_many_distributed(keys)
        for slot in range(40):
            for server in (new, *group.servers):
                server.call("CLUSTER", "SETSLOT", slot, "NODE", new_id)
        assert keys == {key: manager.retrieve_distributed(key) for key in keys}  # By MOVED.
        until(lambda: new.name in manager.get_node_status())


def known(server: LocalServer) -> bytes:
    reply = server.call("CLUSTER", "NODES")
    assert isinstance(reply, bytes)
    return reply
