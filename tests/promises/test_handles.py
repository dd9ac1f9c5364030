"""What a host needs of the object itself: its state, its copies, its sizes while it is in use."""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import typing
from pathlib import Path

import numpy as np
import pytest
from tests.promises.conftest import Make
from tests.support.forking import in_child

from memories import InvalidOptionError, MemoryManager, TierFullError
from memories.foundation import machine
from memories.policies.registry import OwnPolicy


def test_a_manager_tells_its_state(make: Make, tmp_path: Path) -> None:
    """A host that gets one asks whether it is open, where it is, and whether it can write."""
    manager = make()
    assert (False, False, tmp_path / "store") == (manager.closed, manager.read_only, manager.path)
    reader = make(read_only=True)
    assert (False, True, manager.path) == (reader.closed, reader.read_only, reader.path)
    assert "True" == in_child(lambda: manager.read_only)
    with contextlib.closing(manager):
        manager.store("a", 1)
    assert manager.closed and manager.path == reader.path
    manager.close()
    assert 1 == make()["a"]
    private = MemoryManager("1 MB", "1 MB", "10 MB")
    assert private.path is None
    private.close(flush=False)
    assert private.closed


def test_a_copy_of_a_manager_is_the_manager(make: Make) -> None:
    """`sklearn.clone` copies its parameters deeply; two owners of one store are not wanted."""
    manager = make()
    manager.store("a", np.arange(3), "cold")
    nested = {"memory": manager, "view": manager.prefix("a")}
    assert copy.copy(manager) is manager is copy.deepcopy(nested)["memory"]
    assert copy.deepcopy(nested)["view"] == nested["view"]
    again = pickle.loads(pickle.dumps(manager))
    with contextlib.closing(again):
        assert again.read_only and again.path == manager.path
        assert [0, 1, 2] == again["a"].tolist()


def test_sizes_are_shares_of_the_machine(tmp_path: Path) -> None:
    """A program that runs on several machines names a share, and not bytes."""
    ram, disk = machine.ram_bytes(), machine.disk_bytes(tmp_path)
    assert disk is not None and 0 < ram <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with MemoryManager("10%", "auto", " 25 % ", storage_path=tmp_path / "store") as manager:
        tiers = manager.stats().tiers
        assert int(0.1 * ram) == tiers["hot"].configured_bytes  # type: ignore[index]
        assert int(0.4 * ram) == tiers["warm"].configured_bytes  # type: ignore[index]
        assert int(0.25 * disk) == tiers["cold"].configured_bytes  # type: ignore[index]
    with MemoryManager("512Ki", "1Gi", "auto") as manager:
        assert 2**19 == manager.stats().tiers["hot"].configured_bytes  # type: ignore[index]
    for wrong in ("101%", "-1%", "%", "half", 2_000_000_000, "12 X"):
        with pytest.raises(InvalidOptionError, match="hot_memory_size"):
            MemoryManager(wrong)
    with pytest.raises(InvalidOptionError, match=r"a number is gigabytes.*write 1\.07374"):
        MemoryManager(1 << 30)


def test_a_tier_gets_larger_and_smaller_while_it_is_in_use(make: Make) -> None:
    """Other programs come and go; nothing is lost, and no tier exceeds its size."""
    manager = make("0 B", "1 MB", "10 MB", glacier_memory_enabled=False)
    values = {f"{number}": np.random.default_rng(number).bytes(50_000) for number in range(30)}
    for key, value in values.items():
        manager.store(key, value)

    def in_warm() -> int:
        return sum(1 for key in manager if manager.get_tier(key) == "warm")

    assert in_warm() < 20
    manager.resize("warm", "4 MB")
    for key in values:
        manager.migrate(key, "warm")
    assert 30 == in_warm()
    manager.resize("warm", "400 kB")
    assert manager.stats().tiers["warm"].used_bytes <= 400_000  # type: ignore[index]
    assert 0 < in_warm() < 9
    manager.resize("warm", 0)
    assert 0 == in_warm()
    with pytest.raises(TierFullError, match="cold holds"):
        manager.resize("cold", "500 kB")
    assert values == dict(manager)
    manager.delete_many(list(values)[10:])
    manager.resize("cold", "2 MB")
    used = sum(one.stat().st_size for one in manager.path.rglob("*") if one.is_file())  # type: ignore[union-attr]
    assert used <= 2_000_000
    with pytest.raises(TierFullError):
        manager.store("large", np.random.default_rng(1).bytes(3_000_000))
    manager.resize("cold", "20 MB")
    manager.store("large", np.random.default_rng(1).bytes(3_000_000))
    for wrong in [("glacier", 1), ("warm", "x"), ("none", 1), ("warm", -1)]:
        with pytest.raises(InvalidOptionError):
            manager.resize(*wrong)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="read_only"):
        make(read_only=True, glacier_memory_enabled=False).resize("warm", 1)


def test_what_is_still_read_keeps_a_tier_from_shrinking(make: Make) -> None:
    """A budget counts the memory that views hold, so a size below it would be a lie."""
    manager = make("0 B", "10 MB")
    manager.store("a", np.zeros(500_000), "warm")
    view = manager["a"]
    with pytest.raises(TierFullError, match=r"warm holds 4\.0 MB"):
        manager.resize("warm", "1 MB")
    assert "cold" == manager.get_tier("a")
    manager.store("b", np.zeros(500_000), "warm")
    del view
    manager.delete("b")
    manager.resize("warm", "1 MB")


def test_a_host_evicts_one_value_after_the_other(make: Make) -> None:
    """dask watches the memory of the process, and asks for room until there is enough."""
    manager = make("0 B", "1 MB", eviction_policy="lru")
    for number in range(5):
        manager.store(f"{number}", np.zeros(1000) + number, "warm")
    manager.pin("1")
    assert ["0", "2"] == [manager.evict_one(), manager.evict_one("warm")]
    assert ("cold", "warm") == (manager.get_tier("2"), manager.get_tier("3"))
    assert ["3", "4", None] == [manager.evict_one() for _ in range(3)]
    manager.store("kept", b"x" * 9000, "warm", evictable=True, max_tier="warm")
    assert "kept" == manager.evict_one() and "kept" not in manager
    assert manager.evict_one("hot") is None
    assert 3 == manager["3"][0]


@pytest.mark.parametrize("policy", typing.get_args(OwnPolicy))
def test_a_host_asks_who_leaves_next(make: Make, policy: str) -> None:
    """A host that decides when wants to know what it would lose; asking moves nothing."""
    random = np.random.default_rng(1)
    manager = make("0 B", "1 MB", eviction_policy=policy)
    for number in range(300):
        manager.store(f"{number % 60}", np.zeros(int(random.integers(1, 900))), "warm")
        for key in map(str, random.integers(0, 60, 3)):
            manager.retrieve(key, None)
        if number % 3 == 0:
            held = {key: manager.get_tier(key) for key in manager}
            named = manager.victim()
            assert {key: manager.get_tier(key) for key in manager} == held
            assert named == manager.victim("warm") == manager.victim("hot")
            assert named == manager.evict_one() and "cold" == manager.get_tier(named or "")
    while (named := manager.victim()) is not None:
        assert named == manager.evict_one()
    assert manager.evict_one() is None
    assert {"cold"} == {manager.get_tier(key) for key in manager}


def test_who_leaves_next_is_reconsidered_when_it_changes(make: Make) -> None:
    """What was read, pinned, replaced or removed since it was named is not the coldest any more."""
    manager = make("0 B", "1 MB", eviction_policy="lru")
    for number in range(6):
        manager.store(f"{number}", np.zeros(1000) + number, "warm")
    assert "0" == manager.victim()
    manager.retrieve("0")
    assert "1" == manager.victim()
    manager.pin("1")
    assert "2" == manager.victim()
    manager.store("2", np.ones(1000), "warm")
    assert "3" == manager.victim()
    manager.delete("3")
    assert "4" == manager.victim()
    manager.migrate("4", "cold")
    assert "5" == manager.victim()
    manager.store("fills", np.zeros(121_400), "warm")
    assert "cold" == manager.get_tier("5")
    assert "0" == manager.victim() == manager.evict_one()
    manager.clear()
    assert manager.victim() is None


def test_who_leaves_the_disk_next(make: Make) -> None:
    """The order of the disk is a sample; what was named still leaves first."""
    manager = make("0 B", "1 MB")
    manager.store_many({f"{number}": b"x" * 500 for number in range(400)}, "cold")
    for _ in range(40):
        named = manager.victim("cold")
        assert named is not None and named == manager.victim("cold") == manager.evict_one("cold")
        assert "glacier" == manager.get_tier(named)
    assert manager.victim("glacier") is None


def test_what_no_tier_below_takes_is_not_named(make: Make) -> None:
    """`evict_one` passes over what cannot leave, so `victim` does."""
    manager = make("0 B", "1 MB", "400 kB", glacier_memory_enabled=False, eviction_policy="lru")
    random = np.random.default_rng(1)
    manager.store("large", random.bytes(330_000), "cold")
    manager.store("stays", random.bytes(50_000), "warm")
    manager.store("goes", random.bytes(1000), "warm")
    assert "goes" == manager.victim() == manager.evict_one()
    assert manager.victim() is None and manager.evict_one() is None
    manager.store("dropped", random.bytes(50_000), "warm", evictable=True)
    assert "dropped" == manager.victim() == manager.evict_one() and "dropped" not in manager
    manager.store("zeros", np.zeros(10_000), "warm")
    assert "zeros" == manager.victim() == manager.evict_one()
    for call in ("victim", "evict_one"):
        with pytest.raises(OSError, match="read_only"):
            getattr(make(read_only=True, glacier_memory_enabled=False), call)()
    manager.delete("large")
