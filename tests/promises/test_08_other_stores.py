"""Promise 8: what was signed for one store runs in no other, unless that was taken in on purpose.

All stores here belong to one user, whose one key has signed everything.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from memories import MemoriesError, MemoryManager, UntrustedDataError, codecs
from memories.engine.payload import Payload
from memories.frames import writer
from memories.frames.reader import open_frame
from memories.frames.signing import Keyring
from memories.model.record import Terms
from memories.model.tiers import TierName

LOADED: list[str] = []
Open = Callable[..., MemoryManager]


class Loud:
    """Says that it was unpickled."""

    def __init__(self, word: str) -> None:
        self.word = word

    def __setstate__(self, state: dict[str, str]) -> None:
        LOADED.append(state["word"])
        self.__dict__.update(state)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loud) and self.word == other.word

    __hash__ = object.__hash__


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Return what opens a store by its name, all by the same user."""
    LOADED.clear()
    with contextlib.ExitStack() as stack:

        def open_store(name: str, **options: Any) -> MemoryManager:
            options = {
                "glacier_memory_enabled": True,
                "migration": False,
                "prefetch": "off",
                **options,
            }
            manager = MemoryManager(
                "50 MB", "50 MB", "500 MB", storage_path=tmp_path / name, **options
            )
            stack.callback(manager.cleanup)
            return manager

        yield open_store


def frame_of(manager: MemoryManager, key: str) -> memoryview:
    """Return the bytes that a store keeps for a key, as any process can read them."""
    journal = manager._hierarchy.catalog.journal
    record = journal.lookup(key)
    assert record is not None
    return memoryview(bytes(journal.read(record)))


def plant(manager: MemoryManager, frame: memoryview, tier: str) -> None:
    """Put a frame into a store byte for byte."""
    payload = Payload.of_frame(frame, key="k")
    manager._hierarchy.put("k", payload, tier=TierName(tier), terms=Terms())


@pytest.mark.parametrize("tier", ["cold", "glacier"])
@pytest.mark.parametrize("nbytes", [10, 5000, 3_000_000])
def test_a_signed_frame_of_one_store_is_refused_in_another(
    opened: Open, tier: str, nbytes: int
) -> None:
    """The key, the version and the signature are right; the store is not."""
    first, second = opened("first"), opened("second")
    first.store("k", Loud("x" * nbytes), "cold")
    plant(second, frame_of(first, "k"), tier)
    assert 1 == first._hierarchy.catalog.lookup("k").version  # type: ignore[union-attr]
    for read in (
        lambda: second.retrieve("k"),
        lambda: second.retrieve("k", copy=True),
        lambda: second.retrieve_many(["k"]),
        lambda: second.migrate("k", "warm") or second["k"],
    ):
        with pytest.raises(UntrustedDataError, match="signed for another store") as caught:
            read()
        assert "the value of 'k'" in str(caught.value)
    assert [] == LOADED
    assert Loud("x" * nbytes) == first.retrieve("k")


def test_a_copied_statement_changes_nothing(opened: Open, tmp_path: Path) -> None:
    """Write access is enough to copy what another store says, and not to sign it for this one."""
    first, second, third = opened("first"), opened("second"), opened("third")
    first.store("k", Loud("a"), "cold")
    first.create_snapshot(tmp_path / "snapshot")
    third.restore_snapshot(tmp_path / "snapshot")  # So the third one accepts the first.
    assert Loud("a") == third["k"]
    names = sorted(path.name for path in (tmp_path / "third" / "cold" / "stores").iterdir())
    assert 2 == len(names)
    LOADED.clear()
    for name in names:
        if name != "identity":
            shutil.copy(tmp_path / "third/cold/stores" / name, tmp_path / "second/cold/stores")
    plant(second, frame_of(first, "k"), "cold")
    with pytest.raises(UntrustedDataError, match="signed for another store"):
        second.retrieve("k")
    assert [] == LOADED


def test_a_snapshot_brings_its_signed_values_with_it(opened: Open, tmp_path: Path) -> None:
    """Into a new store, over its reopening, and from there into a third one."""
    first = opened("first")
    first.store("k", Loud("a"), "cold")
    first.store("large", Loud("b" * 2_000_000), "cold")
    first.create_snapshot(tmp_path / "one")
    second = opened("second")
    second.restore_snapshot(tmp_path / "one")
    second.store("own", Loud("c"), "cold")
    second.cleanup()
    second = opened("second")
    assert (Loud("a"), Loud("c")) == (second["k"], second["own"])
    second.create_snapshot(tmp_path / "two", base=tmp_path / "one")
    third = opened("third")
    third.restore_snapshot(tmp_path / "two")
    assert (Loud("a"), Loud("b" * 2_000_000)) == (third["k"], third["large"])
    assert Loud("c") == third["own"]
    third.cleanup()
    assert Loud("c") == opened("third", read_only=True)["own"]


def test_a_snapshot_that_a_stranger_changed_brings_nothing(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement by a key that is not trusted here says nothing."""
    monkeypatch.setenv("MEMORIES_KEY_FILE", str(tmp_path / "theirs"))
    first = opened("first")
    first.store("k", Loud("a"), "cold")
    first.create_snapshot(tmp_path / "snapshot")
    monkeypatch.setenv("MEMORIES_KEY_FILE", str(tmp_path / "mine"))
    second = opened("second")
    second.restore_snapshot(tmp_path / "snapshot")
    with pytest.raises(UntrustedDataError, match="not trusted here"):
        second.retrieve("k")
    assert ["identity"] == [path.name for path in (tmp_path / "second/cold/stores").iterdir()]


def test_another_machine_reads_what_an_archive_holds(opened: Open, tmp_path: Path) -> None:
    """An archive outlives the machine that filled it: any store can take it over."""
    archive = str(tmp_path / "archive")
    first = opened("first", glacier_url=archive)
    first.store("k", Loud("a"), "glacier")
    first.cleanup()
    second = opened("second", glacier_url=archive)
    assert Loud("a") == second["k"]
    second.store("more", Loud("b"), "glacier")
    second.promote("k")
    second.migrate("k", "cold")
    second.cleanup()
    third = opened("third", glacier_url=archive)
    assert (Loud("a"), Loud("b")) == (third["k"], third["more"])


def test_values_of_a_store_without_an_identity_stay_readable(opened: Open, tmp_path: Path) -> None:
    """A store of before gets an identity, and keeps what was signed for none; others refuse it."""
    old = opened("old")
    old._hierarchy.trust.binding = None
    old.store("k", Loud("old"), "cold")
    old.cleanup()
    shutil.rmtree(tmp_path / "old" / "cold" / "stores")
    reader = opened("old", read_only=True)
    assert Loud("old") == reader["k"]
    reader.cleanup()
    for _ in range(2):
        old = opened("old")
        assert Loud("old") == old["k"]
        old.store("new", Loud("new"), "cold")
        assert Loud("new") == old["new"]
        frame = frame_of(old, "k")
        old.cleanup()
    other = opened("other")
    plant(other, frame, "cold")
    LOADED.clear()
    with pytest.raises(UntrustedDataError, match="before values were bound to their store"):
        other.retrieve("k")
    assert [] == LOADED


def test_values_of_nodes_and_of_stores_are_kept_apart(opened: Open) -> None:
    """Many managers share nodes, so their values are bound to being on nodes."""
    first = opened("first")
    store, nodes = first._hierarchy.trust, first._hierarchy.trust.for_nodes()
    for mine, other in ((store, nodes), (nodes, store)):
        data = writer.pack(codecs.encode(Loud("a")), key="k", version=1, signer=mine).join()
        assert Loud("a") == codecs.decode(open_frame(data).parts(verifier=mine))
        assert Loud("a") == codecs.decode(
            open_frame(data).parts(verifier=nodes.for_nodes() if mine is nodes else Keyring())
        )
        with pytest.raises(UntrustedDataError, match="signed for another store"):
            open_frame(data).parts(verifier=other)


def test_damaged_statements_are_none(opened: Open, tmp_path: Path) -> None:
    """Any bytes may lie in the place of a statement, and what lies there may be no file."""
    first, second = opened("first"), opened("second")
    first.store("k", Loud("a"), "cold")
    plant(second, frame_of(first, "k"), "cold")
    identity = (tmp_path / "first/cold/stores/identity").read_bytes()
    lie = tmp_path / "second/cold/stores" / identity.hex()
    for data in (b"", b"\xc1", b"\x92\xa0\xc4\x00", b"\x92" + b"\x91" * 3000):
        lie.write_bytes(data)
        with pytest.raises(UntrustedDataError, match="another store"):
            second.retrieve("k")
    lie.unlink()
    lie.symlink_to("/dev/zero")
    with pytest.raises(MemoriesError):
        second.retrieve("k")
    assert [] == LOADED
