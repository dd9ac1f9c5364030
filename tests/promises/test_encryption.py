"""Encryption at rest: without the key a store shows sizes and counts, and nothing else."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from memories import (
    CorruptDataError,
    EncryptionKey,
    EncryptionKeyError,
    InvalidOptionError,
    MemoryManager,
    SharedMemoryManager,
)
from memories.backends.disk.files import Files
from memories.cli.app import app
from memories.sealing.master_key import create_file

MARKER = "planted-marker"
Make = Callable[..., MemoryManager]


@pytest.fixture
def key(tmp_path: Path) -> str:
    create_file(tmp_path / "key", "prod")
    return f"file:{tmp_path / 'key'}"


@pytest.fixture
def make(tmp_path: Path, key: str) -> Iterator[Make]:
    """Return a maker of encrypted managers on one store, which closes what it made."""
    made = []

    def maker(**options: Any) -> MemoryManager:
        options = {"storage_path": tmp_path / "store", "encryption": key, **options}
        made.append(MemoryManager("50 MB", "50 MB", "500 MB", **options))
        return made[-1]

    yield maker
    for manager in made:
        manager.cleanup()


def files_of(path: Path) -> dict[str, bytes]:
    return {str(one): one.read_bytes() for one in path.rglob("*") if one.is_file()}


def values() -> dict[str, Any]:
    """Return values of many kinds whose bytes, names and metadata hold the marker."""
    large = np.frombuffer(MARKER.encode() * 200_000, np.uint8)
    return {
        f"{MARKER}/text": MARKER * 10,
        f"{MARKER}/bytes": MARKER.encode() * 20_000,
        f"{MARKER}/array": large,
        f"{MARKER}/nested": {MARKER: [MARKER, 1]},
        f"{MARKER}/object": Planted(),
    }


class Planted:
    """A value without a codec, which is pickled and signed."""

    def __init__(self) -> None:
        self.name = MARKER

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Planted) and self.name == other.name

    __hash__ = None  # type: ignore[assignment]


def same(one: Any, two: Any) -> bool:
    return np.array_equal(one, two) if isinstance(one, np.ndarray) else bool(one == two)


def test_nothing_in_the_directory_shows_a_key_or_a_value(make: Make, tmp_path: Path) -> None:
    """Also not what the manager writes for other processes, its results and its upkeep."""
    manager = make(write_through=True, compression={"cold": "none"})
    for name, value in values().items():
        manager.store(name, value, metadata={"note": MARKER}, ttl=1000.0)

    @manager.cache
    def planted(text: str) -> str:
        return text * 100

    planted(MARKER)
    manager.enable_analytics()
    manager.get_analytics()
    manager.delete(f"{MARKER}/nested")
    for name in values():
        if name in manager:
            while manager.get_tier(name) != "cold":
                manager.demote(name)
            assert same(values()[name], manager.retrieve(name))
    manager.flush()
    assert [] == manager.check()
    for closed in (False, True):
        found = files_of(tmp_path / "store")
        assert len(found) > 5
        for name, data in found.items():
            assert MARKER.encode() not in data, name
            assert MARKER not in name
        if not closed:
            manager.cleanup()
    again = make()
    for name in sorted(set(values()) - {f"{MARKER}/nested"}):
        assert same(values()[name], again.retrieve(name))
    assert {"note": MARKER} == again.info(f"{MARKER}/text").metadata
    assert set(again.find(note=MARKER)) == set(values()) - {f"{MARKER}/nested"}


def test_without_the_key_it_is_refused_and_stays_as_it_is(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a manager, a reader, and every command."""
    make().store("k", MARKER, tier="cold")
    make().cleanup()
    before = files_of(tmp_path / "store")
    for options in ({}, {"read_only": True}, {"encryption": "env:NOT_SET_ANYWHERE"}):
        with pytest.raises(EncryptionKeyError):
            MemoryManager(storage_path=tmp_path / "store", **options)
    for command in ("ls", "check", "stat"):
        done = CliRunner().invoke(app, [command, str(tmp_path / "store")])
        assert (1, True) == (done.exit_code, "MEMORIES_ENCRYPTION" in done.output), command
    assert before == files_of(tmp_path / "store")
    monkeypatch.setenv("MEMORIES_ENCRYPTION", f"file:{tmp_path / 'key'}")
    for command, printed in (("ls", "k\n"), ("check", "1 keys, 0 problems"), ("get", MARKER)):
        arguments = [command, str(tmp_path / "store"), *(["k"] if command == "get" else [])]
        done = CliRunner().invoke(app, arguments)
        assert (0, True) == (done.exit_code, printed in done.output), done.output


def test_a_region_decrypts_only_where_it_lies(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row of 40 MB reads a few chunks."""
    array = np.arange(5_000_000, dtype=np.int64).reshape(5000, 1000)
    manager, read = make(compression={"cold": "none"}), []
    manager.store("a", array, tier="cold")

    def counted(self: Files, descriptor: int, length: int, offset: int) -> bytes:
        read.append(length)
        return os.pread(descriptor, length, offset)

    monkeypatch.setattr(Files, "read", counted)
    part = manager.retrieve("a", region=np.s_[2500:2502, 10:20])
    assert np.array_equal(array[2500:2502, 10:20], part)
    assert 0 < sum(read) < 4 << 20


def test_a_pickled_manager_has_the_place_of_the_key_and_not_the_key(
    make: Make, tmp_path: Path
) -> None:
    """A worker process opens the store by it."""
    manager = make()
    manager.store("k", MARKER, tier="cold")
    pickled = pickle.dumps(manager)
    secret = (tmp_path / "key").read_text().strip().rpartition(":")[2]
    assert secret.encode() not in pickled
    assert secret not in repr(manager)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert MARKER == pool.apply(_retrieved, (manager,))


def _retrieved(manager: MemoryManager) -> Any:
    return manager.retrieve("k")


def test_processes_share_an_encrypted_store(tmp_path: Path, key: str) -> None:
    """Each of them has the key; the writer and the reader of the disk use the same place."""
    with SharedMemoryManager(tmp_path / "store", encryption=key) as manager:
        manager.store("k", MARKER * 10_000)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert MARKER * 10_000 == pool.apply(_shared, (str(tmp_path / "store"), key))
        assert MARKER == manager.retrieve("other")
    for name, data in files_of(tmp_path / "store").items():
        assert MARKER.encode() not in data, name


def _shared(path: str, key: str) -> Any:
    with SharedMemoryManager(path, encryption=key) as manager:
        manager.store("other", MARKER)
        return manager.retrieve("k")


@pytest.mark.parametrize("room", ["500 MB", "2 MB"])
def test_a_snapshot_is_encrypted_and_restored_elsewhere(
    make: Make, tmp_path: Path, key: str, room: str
) -> None:
    """It is another copy of all values: with the key it brings all of them back."""
    manager, file = make(), tmp_path / "snapshot"
    kept = {**values(), **{f"{MARKER}/{n}": MARKER * n for n in range(600)}}
    manager.store_many(kept)
    manager.flush()
    manager.store(f"{MARKER}/ram", MARKER, tier="hot", metadata={"note": MARKER})
    manager.create_snapshot(file)
    assert MARKER.encode() not in file.read_bytes()
    assert [] == [one.name for one in tmp_path.iterdir() if "partial" in one.name]
    for options in ({"read_only": False}, {"storage_path": tmp_path / "plain"}):
        with MemoryManager(**options) as plain:
            plain.store("own", 1)
            with pytest.raises(EncryptionKeyError, match="is encrypted with the key 'prod'"):
                plain.restore_snapshot(file)
            assert {"own": 1} == dict(plain)
    elsewhere = tmp_path / "elsewhere"
    other = MemoryManager("50 MB", "50 MB", room, storage_path=elsewhere, encryption=key)
    other.store("own", 1, tier="cold")
    other.restore_snapshot(file, wait=True)
    assert {*kept, f"{MARKER}/ram"} == set(other)
    assert all(same(value, other.retrieve(name)) for name, value in kept.items())
    assert {"note": MARKER} == other.info(f"{MARKER}/ram").metadata
    assert [] == other.check()
    other.cleanup(flush=room != "2 MB")  # Then values stay in RAM for which cold has no room.
    for name, data in files_of(elsewhere).items():
        assert MARKER.encode() not in data, name


def test_a_plain_snapshot_is_encrypted_by_its_restore(make: Make, tmp_path: Path) -> None:
    """So a plain store can be moved: nothing of the file is adopted as it lies."""
    with MemoryManager(storage_path=tmp_path / "plain") as plain:
        plain.store_many(values(), tier="cold")
        plain.create_snapshot(tmp_path / "snapshot")
    for verify in ("full", "lazy"):
        manager = make()
        manager.restore_snapshot(tmp_path / "snapshot", verify=verify)
        manager.cleanup()
        for name, data in files_of(tmp_path / "store").items():
            assert MARKER.encode() not in data, name
    again = make()
    assert all(same(value, again.retrieve(name)) for name, value in values().items())


RESTORE = """
import sys
from memories import MemoryManager
manager = MemoryManager(1, 1, 1, storage_path=sys.argv[1], encryption=sys.argv[2])
print(flush=True)
manager.restore_snapshot(sys.argv[3], mode="merge")
print("done", flush=True)
"""


def test_a_killed_restore_leaves_each_value_old_or_restored(
    make: Make, tmp_path: Path, key: str
) -> None:
    """Values are written batch by batch, and each batch is in the log before the next one."""
    names = [f"k{number:04}" for number in range(3000)]
    with MemoryManager(storage_path=tmp_path / "plain") as plain:
        plain.store_many({name: f"new {name}" for name in names}, tier="cold")
        plain.create_snapshot(tmp_path / "snapshot")
    make().store_many({name: f"old {name}" for name in names}, tier="cold")
    make().cleanup()
    arguments = [str(tmp_path / "store"), key, str(tmp_path / "snapshot")]
    child = subprocess.Popen([sys.executable, "-c", RESTORE, *arguments], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(0.02)
    child.kill()
    done = b"done" in child.communicate()[0]
    manager = make()
    found = manager.retrieve_many(names)
    restored = [name for name in names if found[name] == f"new {name}"]
    assert all(found[name] in (f"old {name}", f"new {name}") for name in names)
    assert not done or restored == names
    assert names[: len(restored)] == restored
    assert [] == manager.check()


def test_a_snapshot_builds_on_an_encrypted_one_only(make: Make, tmp_path: Path) -> None:
    """What a plain base holds would be shown by it."""
    with MemoryManager(storage_path=tmp_path / "plain") as plain:
        plain.store("k", MARKER, tier="cold")
        plain.create_snapshot(tmp_path / "base")
    manager = make()
    manager.store_many(values(), tier="cold")
    with pytest.raises(InvalidOptionError, match="is not encrypted, and the store is"):
        manager.create_snapshot(tmp_path / "one", base=tmp_path / "base")
    manager.create_snapshot(tmp_path / "one")
    manager.store("later", MARKER, tier="cold")
    manager.create_snapshot(tmp_path / "two", base=tmp_path / "one")
    assert (tmp_path / "two").stat().st_size < (tmp_path / "one").stat().st_size
    manager.clear()
    manager.restore_snapshot(tmp_path / "two")
    assert {*values(), "later"} == set(manager)
    assert all(same(value, manager.retrieve(name)) for name, value in values().items())


def test_every_altered_byte_of_a_snapshot_is_an_error(make: Make, tmp_path: Path) -> None:
    """And what is cut off, or exchanged with another one; what was there before stays."""
    manager, file = make(), tmp_path / "snapshot"
    manager.store_many(values(), tier="cold")
    manager.create_snapshot(file)
    manager.create_snapshot(tmp_path / "other")
    data, other, chance = file.read_bytes(), (tmp_path / "other").read_bytes(), random.Random(1)
    forgeries = [data[:-1], data[: len(data) // 2], data + b"x", data[:300] + other[300:], b""]
    forgeries.append(data[: len(data) // 2] + other[len(data) // 2 :])
    for at in [*range(0, 400, 7), *(chance.randrange(len(data)) for _ in range(30))]:
        forgeries.append(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    manager.clear()
    manager.store("own", MARKER)
    for forged in forgeries:
        file.write_bytes(forged)
        with pytest.raises((CorruptDataError, EncryptionKeyError)):
            manager.restore_snapshot(file)
    assert {"own": MARKER} == dict(manager)


def test_the_key_of_a_snapshot_is_rotated(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the same command; its values are copied as they lie, and a failure leaves it whole."""
    monkeypatch.setenv("MEMORIES_ENCRYPTION", f"file:{tmp_path / 'key'}")
    create_file(tmp_path / "new", "other")
    manager, file = make(), tmp_path / "snapshot"
    manager.store_many(values(), tier="cold")
    manager.create_snapshot(file)
    before = file.read_bytes()

    def run(*arguments: object) -> str:
        return CliRunner().invoke(app, ["key", *map(str, arguments)]).output

    assert "\tprod\t1" in run("list", file)
    assert "0 of 1 data keys" in run("rotate", file)
    file.write_bytes(b"x" + before)
    assert "is not an encrypted file" in run("rotate", file, "--to", f"file:{tmp_path / 'new'}")
    assert b"x" + before == file.read_bytes()
    file.write_bytes(before)
    with monkeypatch.context() as failing:
        failing.setattr(os, "fsync", _failing)
        assert "No space" in run("rotate", file, "--to", f"file:{tmp_path / 'new'}")
    assert before == file.read_bytes()
    assert "1 of 1" in run("rotate", file, "--to", f"file:{tmp_path / 'new'}")
    assert "\tother\t1" in run("list", file)
    with pytest.raises(EncryptionKeyError, match="'other'"):
        manager.restore_snapshot(file)
    assert "1 of 1" in run("rotate", tmp_path / "store", "--to", f"file:{tmp_path / 'new'}")
    manager.cleanup()
    again = make(encryption=f"file:{tmp_path / 'new'}")
    again.clear()
    again.restore_snapshot(file)
    assert all(same(value, again.retrieve(name)) for name, value in values().items())


def _failing(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_commands_open_an_encrypted_snapshot_with_the_key(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they open the store."""
    make().store("k", MARKER, tier="cold")
    make().cleanup()
    file, store = str(tmp_path / "snapshot"), str(tmp_path / "store")
    commands = [["create", store, file], ["verify", file], ["inspect", "--keys", file]]
    commands += [["extract", file, "k"], ["diff", file, file]]
    monkeypatch.setenv("MEMORIES_ENCRYPTION", f"file:{tmp_path / 'key'}")
    for command in commands:
        assert 0 == CliRunner().invoke(app, ["snapshot", *command]).exit_code, command
    monkeypatch.delenv("MEMORIES_ENCRYPTION")
    for command in commands:
        done = CliRunner().invoke(app, ["snapshot", *command])
        assert (1, True) == (done.exit_code, "MEMORIES_ENCRYPTION" in done.output), command


def test_an_archive_is_encrypted_and_continued_elsewhere(make: Make, tmp_path: Path) -> None:
    """Neither its objects nor the map of them shows anything, and another machine opens it."""
    archive: dict[str, Any] = {
        "glacier_memory_enabled": True,
        "glacier_url": str(tmp_path / "bucket"),
    }
    manager = make(**archive)
    for name, value in values().items():
        manager.store(name, value, tier="glacier", metadata={"note": MARKER})
    manager.store(f"{MARKER}/gone", MARKER, tier="glacier")
    manager.delete(f"{MARKER}/gone")
    region = manager.retrieve(f"{MARKER}/array", region=np.s_[1_000_000:1_000_020])
    assert np.array_equal(values()[f"{MARKER}/array"][1_000_000:1_000_020], region)
    manager.create_snapshot(tmp_path / "snapshot")
    assert [] == manager.check()
    for directory in ("store", "bucket"):
        for name, data in files_of(tmp_path / directory).items():
            assert MARKER.encode() not in data, name
            assert MARKER not in name
    manager.cleanup()
    other = make(storage_path=tmp_path / "other", **archive)
    assert set(values()) == set(other)
    assert all(same(value, other.retrieve(name)) for name, value in values().items())
    assert {"note": MARKER} == other.info(f"{MARKER}/text").metadata
    other.clear()
    other.restore_snapshot(tmp_path / "snapshot")
    assert all(same(value, other.retrieve(name)) for name, value in values().items())
    with pytest.raises(EncryptionKeyError, match="is encrypted"):
        MemoryManager(storage_path=tmp_path / "plain", **archive)
    reader = make(storage_path=None, read_only=True, **archive)
    assert set(values()) == set(reader)


def test_the_key_of_an_archive_is_rotated_with_that_of_its_store(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a call, and by the command for a store, or for the URL of an archive."""
    monkeypatch.setenv("MEMORIES_ENCRYPTION", f"file:{tmp_path / 'key'}")

    def run(*arguments: object) -> str:
        done = CliRunner().invoke(app, list(map(str, arguments)))
        assert 0 == done.exit_code, done.output
        return done.output

    store, manager = tmp_path / "store", make(glacier_memory_enabled=True)
    manager.store("k", MARKER, tier="glacier")
    run("key", "generate", "--add", tmp_path / "key")
    assert ("prod", 2, 2, 2) == manager.rotate_key()
    manager.cleanup()
    run("key", "generate", "--add", tmp_path / "key")
    assert "2 of 2 data keys wrapped anew, all with version 3" in run("key", "rotate", store)
    assert 2 == run("key", "list", store).count("\tprod\t3")
    run("key", "generate", "--add", tmp_path / "key")
    assert "1 of 1 data keys" in run("key", "rotate", store / "glacier")
    assert "\tprod\t4" in run("key", "list", store / "glacier")
    assert MARKER == make(glacier_memory_enabled=True).retrieve("k")
    assert "keys      1" in run("adopt", store / "glacier")


def test_a_private_store_is_encrypted_too(key: str) -> None:
    """A directory in /tmp that a killed process leaves shows nothing."""
    with MemoryManager(encryption=key) as manager:
        manager.store("k", MARKER, tier="cold")
        root = Path(manager._services.backends[0]._paths.root)  # type: ignore[attr-defined]
        for name, data in files_of(root).items():
            assert MARKER.encode() not in data, name
        assert MARKER == manager.retrieve("k")
        with pytest.raises(InvalidOptionError, match="has a key"):
            manager.rotate_key()


def test_the_key_is_rotated_by_a_call_and_by_a_command(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store stays open; `memories key list` shows what wraps its data keys."""
    monkeypatch.setenv("MEMORIES_ENCRYPTION", f"file:{tmp_path / 'key'}")

    def run(*arguments: object) -> str:
        done = CliRunner().invoke(app, ["key", *map(str, arguments)])
        assert 0 == done.exit_code, done.output
        return done.output

    store, manager = tmp_path / "store", make()
    manager.store("k", MARKER, tier="cold")
    assert "prod\t2" in run("generate", "--add", tmp_path / "key")
    assert ("prod", 2, 1, 1) == manager.rotate_key()
    run("generate", "--add", tmp_path / "key")
    assert "1 of 1 data keys wrapped anew, all with version 3 of prod" in run("rotate", store)
    assert "\tprod\t3" in run("list", store)
    assert "other\t1" in run("generate", tmp_path / "new", "--name", "other")
    assert '"rewrapped":1' in run("rotate", store, "--to", f"file:{tmp_path / 'new'}", "--json")
    assert '"master_key":"other"' in run("list", store, "--json")
    manager.store("later", MARKER, tier="cold")
    manager.cleanup()
    with pytest.raises(EncryptionKeyError, match="'other'"):
        make()
    new = EncryptionKey.from_file(tmp_path / "new")
    assert {"k": MARKER, "later": MARKER} == dict(make(encryption=new))


def test_a_missing_package_is_named_before_anything_is_made(
    tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra is optional: without it the option is refused."""
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(ImportError, match="cryptography"):
        MemoryManager(storage_path=tmp_path / "store", encryption=key)
    assert not (tmp_path / "store/cold/log").exists() or not files_of(tmp_path / "store/cold/log")
