"""Values on encrypted nodes: no server sees a value, a key, a namespace or metadata."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.waiting import until

from memories import DistributedMemoryManager, EncryptionKey
from memories.cluster.local import LocalGroup
from memories.cluster.register_format import RegisterBody, RegisterKind
from memories.errors import CorruptDataError, EncryptionKeyError, KeyNotFoundError
from memories.sealing.master_key import append_version, create_file

pytestmark = pytest.mark.server
MARKER = "planted-marker"
SMALL = {"hot_memory_size": 0.01, "warm_memory_size": 0.05, "cold_memory_size": 0.1}
Make = Callable[..., DistributedMemoryManager]
PLAIN = pytest.mark.parametrize("group", ["plain"], indirect=True)  # The same code for both.


@pytest.fixture(params=["plain", "cluster"])
def group(request: pytest.FixtureRequest) -> LocalGroup:
    """Fresh servers of either kind."""
    group: LocalGroup = request.getfixturevalue(f"{request.param}_nodes")
    return group


@pytest.fixture
def make(group: LocalGroup, tmp_path: Path) -> Iterator[Make]:
    """Return a maker of managers with one key, in the namespace of the test."""
    create_file(tmp_path / "key", f"prod-{secrets.token_hex(4)}")
    made, namespace = [], f"{MARKER}-{secrets.token_hex(4)}"

    def maker(key: str | None = "key", **options: Any) -> DistributedMemoryManager:
        options = {**SMALL, "namespace": namespace, "near_cache": False, **options}
        encryption = None if key is None else EncryptionKey.from_file(tmp_path / key)
        made.append(DistributedMemoryManager(nodes=group.names, encryption=encryption, **options))
        return made[-1]

    yield maker
    for manager in made:
        manager.cleanup()


def values() -> dict[str, Any]:
    """Return values of many kinds: small and plain, frames, and one of several chunks."""
    return {
        f"{MARKER}/text": MARKER * 10,
        f"{MARKER}/nested": {MARKER: [MARKER, 1, None]},
        f"{MARKER}/array": np.frombuffer(MARKER.encode() * 100, np.uint8),
        f"{MARKER}/large": np.frombuffer(MARKER.encode() * 700_000, np.uint8),
        f"{MARKER}/é": (MARKER, 2.5),
    }


def same(one: Any, other: Any) -> bool:
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else bool(one == other)


def everything(group: LocalGroup) -> Iterator[bytes]:
    """Yield every name and every string on every node."""
    for server in group.servers:
        names = server.call("KEYS", "*")
        assert isinstance(names, list)
        role = server.call("ROLE")
        assert isinstance(role, list)
        for name in names:
            yield name
            if role[0] == b"master" and server.call("TYPE", name) == b"string":
                found = server.call("GET", name)
                yield found if isinstance(found, bytes) else b""


def test_no_server_sees_a_value_a_key_a_namespace_or_metadata(
    group: LocalGroup, make: Make
) -> None:
    """Who runs the nodes, or listens before them, learns sizes and counts."""
    manager, other = make(), make()
    for key, value in values().items():
        manager.store_distributed(key, value, metadata={"note": MARKER}, ttl=1000)
    manager.store_many_distributed({f"{MARKER}/{n}": MARKER * n for n in range(20)})
    manager.delete_distributed(f"{MARKER}/7")
    for data in everything(group):
        assert MARKER.encode() not in data
    for key, value in values().items():
        assert same(value, other.retrieve_distributed(key))
        assert {"note": MARKER} == other.info_distributed(key).metadata
    found = other.retrieve_many_distributed([f"{MARKER}/{n}" for n in (1, 2, 7)], default=None)
    assert {f"{MARKER}/1": MARKER, f"{MARKER}/2": MARKER * 2, f"{MARKER}/7": None} == found


def test_scans_and_namespaces_work(make: Make) -> None:
    """Keys come in their order, and each namespace is a space of its own."""
    manager, elsewhere = make(), make(namespace=f"other-{secrets.token_hex(4)}")
    names = ["b", "a/1", "a/2", "é", "a/10"]
    manager.store_many_distributed(dict.fromkeys(names, 1))
    elsewhere.store_distributed("b", 2)
    assert sorted(names, key=str.encode) == list(manager.scan_distributed())
    assert ["a/1", "a/10", "a/2"] == list(manager.scan_distributed("a/"))
    assert ["b"] == list(elsewhere.scan_distributed())
    assert 5 == manager.clear_distributed()
    assert [] == list(manager.scan_distributed())
    assert 2 == elsewhere.retrieve_distributed("b")
    assert 1 == elsewhere.clear_distributed()


@PLAIN
def test_a_region_receives_only_its_chunks(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 40 MB two chunks come: the first, which describes the value, and the one asked for."""
    array = np.arange(5_000_000, dtype=np.int64)
    manager = make()
    manager.store_distributed("a", array)
    received = []
    read_some = manager._service.chunks.read_some

    def counted(manifest: Any, views: Any) -> None:
        received.extend(view.nbytes for view in views.values())
        read_some(manifest, views)

    monkeypatch.setattr(manager._service.chunks, "read_some", counted)
    region = manager.retrieve_distributed("a", region=np.s_[4_000_000:4_000_010])
    assert np.array_equal(array[4_000_000:4_000_010], region)
    assert sum(received) <= 3 * (4 << 20)


@PLAIN
def test_another_key_is_one_error_and_no_key_is_another_space(make: Make, tmp_path: Path) -> None:
    """A manager without it neither sees nor removes what is encrypted."""
    manager = make()
    manager.store_distributed("k", MARKER)
    name = EncryptionKey.from_file(tmp_path / "key").newest()[0]
    create_file(tmp_path / "same name", name)
    with pytest.raises(EncryptionKeyError, match="is not the key with which"):
        make("same name")
    create_file(tmp_path / "other", f"other-{secrets.token_hex(4)}")
    for key in (None, "other"):
        without = make(key)
        assert [] == list(without.scan_distributed())
        with pytest.raises(KeyNotFoundError):
            without.retrieve_distributed("k")
        assert 0 == without.clear_distributed()
    assert MARKER == manager.retrieve_distributed("k")


def test_an_altered_or_exchanged_value_is_an_error(group: LocalGroup, make: Make) -> None:
    """The server's own checksums hold again, and it is not the value of that key."""
    manager = make()
    manager.store_distributed("a", b"1" * 1000)
    manager.store_distributed("b", b"2" * 1000)
    frames = manager._frames
    one, two = (frames._registers.read([frames._name(key)])[frames._name(key)] for key in "ab")
    assert one.body is not None and two.body is not None  # type: ignore[union-attr]
    altered = bytearray(one.body)  # type: ignore[union-attr,arg-type]
    altered[-1] ^= 1
    for body in (bytes(two.body), bytes(altered), b"planted", b"splanted"):  # type: ignore[union-attr,arg-type]
        frames._registers.write({frames._name("a"): RegisterBody(RegisterKind.VALUE, [body])})
        with pytest.raises(CorruptDataError, match="'a' cannot be read"):
            manager.retrieve_distributed("a")
        with pytest.raises(CorruptDataError, match="'a' cannot be read"):
            manager.retrieve_many_distributed(["a"])
    assert b"2" * 1000 == manager.retrieve_distributed("b")


def test_local_copies_are_forgotten_when_another_manager_stores(make: Make) -> None:
    """The nodes report hidden names, and the manager knows whose they are."""
    manager, other = make(near_cache=True), make()
    other.store_distributed("k", 1)
    assert 1 == manager.retrieve_distributed("k")
    other.store_distributed("k", 2)
    until(lambda: manager.retrieve_distributed("k") == 2)


def test_the_key_is_rotated_while_managers_go_on(make: Make, tmp_path: Path) -> None:
    """One register is written; then the older version of the master key is not needed."""
    manager, other = make(), make()
    manager.store_distributed("k", MARKER)
    append_version(tmp_path / "key")
    done = manager.rotate_key()
    assert (2, 1, 1) == (done.version, done.rewrapped, done.keys)
    assert 0 == other.rotate_key().rewrapped
    (tmp_path / "key").write_text((tmp_path / "key").read_text().split()[-1])
    other.store_distributed("later", MARKER)
    fresh = make()
    assert MARKER == fresh.retrieve_distributed("k") == fresh.retrieve_distributed("later")
    create_file(tmp_path / "new", f"new-{secrets.token_hex(4)}")
    assert 1 == fresh.rotate_key(f"file:{tmp_path / 'new'}").rewrapped
    assert MARKER == make("new").retrieve_distributed("k")
    assert [] == manager.repair().unreadable


@PLAIN
def test_managers_that_begin_together_make_one_key(make: Make) -> None:
    """There is no first one among them: what each stores, the others read."""
    with ThreadPoolExecutor(4) as pool:
        managers = list(pool.map(lambda _: make(), range(4)))
    for number, manager in enumerate(managers):
        manager.store_distributed(f"k{number}", number)
    assert {f"k{n}": n for n in range(4)} == managers[0].retrieve_many_distributed(
        [f"k{n}" for n in range(4)]
    )
