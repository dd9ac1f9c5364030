"""Promise 8 against an adversary who can write: malicious pickles in every place that is read.

Each is a frame whose checksums all hold, put into a store byte for byte. (What lies on nodes of a
cluster is read by the same decoder, and tried in the tests of the nodes.)
"""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.promises.conftest import Make
from tests.unit.frames.test_signing import forged

from memories import MemoriesError, MemoryManager, UntrustedDataError, codecs
from memories.engine.payload import Payload
from memories.frames import writer
from memories.frames.reader import open_frame
from memories.frames.signing import Keyring
from memories.model.record import Terms
from memories.model.tiers import TierName

KEY = "k"
ROADS: dict[str, Callable[[MemoryManager], Any]] = {
    "retrieve": lambda manager: manager.retrieve(KEY),
    "a mapping": lambda manager: manager[KEY],
    "a copy": lambda manager: manager.retrieve(KEY, copy=True),
    "a shared value": lambda manager: manager.retrieve(KEY, copy=False),
    "a region": lambda manager: manager.retrieve(KEY, region=...),
    "many": lambda manager: manager.retrieve_many([KEY]),
    "a change": lambda manager: manager.modify(KEY, lambda value: value),
    "a default": lambda manager: manager.setdefault(KEY, 1),
    "a removal": lambda manager: manager.pop(KEY),
}


class Bomb:
    """Makes a directory when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return os.mkdir, (self.path,)


def attacks(target: Path, mine: Keyring, theirs: Keyring) -> dict[str, bytes]:
    """Return frames that would run code, by what is wrong with each."""
    bomb = pickle.dumps(Bomb(target))
    node = ["pickle", {"writable": []}, [0]]
    tree = {"nodes": [node, ["list", [[0]]]], "root": [1]}

    def signed(ring: Keyring, key: str) -> bytes:
        return writer.pack(codecs.encode(Bomb(target)), key=key, version=1, signer=ring).join()

    moved = open_frame(signed(mine, "another"))
    return {
        "unsigned": forged("pickle", {"writable": []}, bomb),
        "unsigned in a list": forged("tree+pickle", tree, bomb),
        "hidden in a list": forged("tree", tree, bomb),
        "hidden in a table": forged("pandas.frame", tree, bomb),
        "signed by a stranger": signed(theirs, KEY),
        "signed by me for another key": forged(
            "pickle",
            {"writable": []},
            bytes(moved.parts(verifier=mine).buffers[0]),
            key_id=moved._fields.key_id,
            mac=moved._fields.mac,
        ),
    }


NAMES = tuple(attacks(Path("nowhere"), Keyring(), Keyring(trusted=())))


@pytest.fixture
def planted(tmp_path: Path, make: Make) -> Callable[[str, str], MemoryManager]:
    """Return what makes a manager whose store holds an attack in a tier."""

    def plant(name: str, tier: str) -> MemoryManager:
        manager = make()
        theirs = Keyring(tmp_path / "theirs")
        data = attacks(tmp_path / "exploded", manager._hierarchy.trust, theirs)[name]
        payload = Payload.of_frame(memoryview(data), key=KEY)
        manager._hierarchy.put(KEY, payload, tier=TierName(tier), terms=Terms())
        return manager

    return plant


def assert_refused(manager: MemoryManager, tmp_path: Path, name: str) -> None:
    """No road gives the value, and none runs it."""
    for road in ROADS.values():
        with pytest.raises(MemoriesError) as caught:
            road(manager)
        assert not (tmp_path / "exploded").exists()
        if not name.startswith("hidden") and road is not ROADS["a region"]:
            assert isinstance(caught.value, UntrustedDataError)
            assert f"the value of {KEY!r} would run code" in str(caught.value)


@pytest.mark.parametrize("tier", ["cold", "glacier"])
@pytest.mark.parametrize("name", NAMES)
def test_a_planted_pickle_runs_on_no_road(
    planted: Callable[[str, str], MemoryManager], tmp_path: Path, name: str, tier: str
) -> None:
    """Files and objects can be written by others; whatever reads them must not obey them."""
    manager = planted(name, tier)
    assert_refused(manager, tmp_path, name)
    assert tier == manager.get_tier(KEY)
    for target in ("glacier", "cold", "warm", "hot"):
        with contextlib.suppress(MemoriesError):  # Between frames the bytes may move as they are.
            manager.migrate(KEY, target)
        assert_refused(manager, tmp_path, name)


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_pickle_does_not_run_out_of_a_snapshot(
    planted: Callable[[str, str], MemoryManager], tmp_path: Path, name: str
) -> None:
    """A snapshot is handed from person to person: taking one in must be safe before it is read."""
    manager = planted(name, "cold")
    manager.store("plain", [1, 2], "cold")
    manager.create_snapshot(tmp_path / "snapshot")
    manager.clear()
    manager.restore_snapshot(tmp_path / "snapshot")
    assert_refused(manager, tmp_path, name)
    assert [1, 2] == manager["plain"]


def test_the_bomb_is_a_bomb(tmp_path: Path) -> None:
    """Otherwise nothing above would prove anything."""
    pickle.loads(pickle.dumps(Bomb(tmp_path / "exploded")))
    assert (tmp_path / "exploded").exists()
