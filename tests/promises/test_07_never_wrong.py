"""Promise 7: never wrong data, and KeyError means absent and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.promises.conftest import Make
from tests.support.passing_time import PassTime

from memories import CorruptDataError, KeyNotFoundError, MemoryManager


def flip(folder: Path, needle: bytes) -> int:
    """Flip one bit inside every occurrence of `needle` below `folder`; return how many."""
    count = 0
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        data = bytearray(path.read_bytes())
        at = data.find(needle)
        while at >= 0:
            data[at + 7] ^= 1
            count += 1
            at = data.find(needle, at + len(needle))
        path.write_bytes(data)
    return count


@pytest.mark.parametrize("tier", ["cold", "glacier"])
def test_a_flipped_bit_is_reported_by_key_and_spares_the_others(make: Make, tier: str) -> None:
    """The damaged key says so, the others answer, and it can be overwritten."""
    marked = np.frombuffer(np.random.default_rng(3).bytes(2_000_000), "u1").copy()
    marked[1000:1032] = np.frombuffer(b"a needle that nothing else holds", "u1")
    manager = make()
    manager.store("bad", marked, tier)
    manager.store("good", np.arange(10), tier)
    manager.cleanup()
    assert flip(Path(manager._services.settings.storage_path or ""), b"a needle that nothing") >= 1
    again = make()
    with pytest.raises(CorruptDataError, match="bad") as caught:
        again.retrieve("bad")
    assert isinstance(caught.value, ValueError)
    assert not isinstance(caught.value, KeyError)
    assert np.array_equal(np.arange(10), again.retrieve("good"))
    again.store("bad", "mended", tier)
    assert "mended" == again.retrieve("bad")


def test_a_flipped_bit_is_reported_by_every_region_that_contains_it(make: Make) -> None:
    """Chunks that were verified are not verified again, and say nothing of the others."""
    rows = np.frombuffer(np.random.default_rng(3).bytes(8_000_000), "u1").copy().reshape(1000, -1)
    rows[700, 1000:1032] = np.frombuffer(b"a needle that nothing else holds", "u1")
    manager = make()
    manager.store("bad", rows, "cold")
    manager.cleanup()
    assert 1 == flip(Path(manager._services.settings.storage_path or ""), b"a needle that nothing")
    again = make()
    for _ in range(3):
        assert np.array_equal(rows[:300, 50:90], again.retrieve("bad", region=np.s_[:300, 50:90]))
        with pytest.raises(CorruptDataError, match="bad"):
            again.retrieve("bad", region=np.s_[600:800, :9])
    with pytest.raises(CorruptDataError, match="bad"):
        again.retrieve("bad")
    again.store("bad", rows, "cold")
    assert np.array_equal(rows[600:800, :9], again.retrieve("bad", region=np.s_[600:800, :9]))


def test_absent_is_the_only_key_error(manager: MemoryManager) -> None:
    """The error names the key and is our own and the builtin one."""
    with pytest.raises(KeyNotFoundError, match="'nowhere' is in no tier"):
        manager.retrieve("nowhere")
    for act in (manager.delete, manager.get_tier, manager.promote, manager.pin, manager.explain):
        with pytest.raises(KeyError):
            act("nowhere")
    assert 7 == manager.retrieve("nowhere", 7)
    assert manager.get("nowhere") is None


def test_a_value_expires_in_every_tier(make: Make, pass_time: PassTime) -> None:
    """A time to live is kept by the wall clock, wherever the value lies."""
    manager = make()
    for tier in ("hot", "warm", "cold", "glacier"):
        manager.store(tier, tier, tier, ttl=300)
        assert tier == manager.retrieve(tier)
    pass_time(350)
    for tier in ("hot", "warm", "cold", "glacier"):
        with pytest.raises(KeyError):
            manager.retrieve(tier)
        assert tier not in manager
    assert [] == list(manager)
