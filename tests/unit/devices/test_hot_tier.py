"""The hot tier in the memory of a device."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memories import (
    ForkedError,
    InvalidOptionError,
    KeyNotFoundError,
    MemoryManager,
    StorageError,
)
from memories.testing.fake_device import FakeDevice, FakeTensor

MB = 1_000_000
Opener = Callable[..., MemoryManager]


def noise(nbytes: int, seed: int = 0) -> Any:
    """Return incompressible floats."""
    return np.random.default_rng(seed).random(nbytes // 8)


def payload(manager: MemoryManager, key: str) -> Any:
    """Return what the tier really holds."""
    return manager._services.hierarchy.catalog.entries[key].payload


def test_a_tensor_comes_back_as_a_tensor_of_its_own(
    manager: MemoryManager, device: FakeDevice
) -> None:
    """On the device it was on, and a reader that writes into its value changes no other."""
    tensor = device.tensor(np.arange(5.0))
    manager.store("t", tensor, tier="hot")
    tensor.fill(7)
    first = manager.retrieve("t")
    assert isinstance(first, FakeTensor)
    first.fill(8)
    assert list(range(5)) == manager.retrieve("t").numpy().tolist()
    assert "hot" == manager.get_tier("t")


def test_without_a_copy_it_is_the_resident_memory(
    manager: MemoryManager, device: FakeDevice
) -> None:
    """Nothing is allocated for the caller, and the memory that it uses stays charged."""
    manager.store("t", device.tensor(noise(MB)), tier="hot")
    gc.collect()
    held = device.used_bytes
    shared = manager.retrieve("t", copy=False)
    assert held == device.used_bytes
    assert shared.memory.block is payload(manager, "t").description().far[0].memory.block
    usage = manager.stats().tiers["hot"].used_bytes
    manager.delete("t")
    assert usage == manager.stats().tiers["hot"].used_bytes
    del shared
    gc.collect()
    assert 0 == manager.stats().tiers["hot"].used_bytes
    assert 0 == device.used_bytes


def test_handing_over_copies_nothing(manager: MemoryManager, device: FakeDevice) -> None:
    """`store(copy=False)` takes over the caller's memory without a copy."""
    tensor = device.tensor(noise(MB))
    used = device.used_bytes
    manager.store("t", tensor, tier="hot", copy=False)
    assert used == device.used_bytes


def test_host_values_lie_on_the_device_and_come_back_as_they_were(
    manager: MemoryManager, device: FakeDevice
) -> None:
    """A NumPy array comes back as NumPy, read-only, whatever the tier."""
    array = np.asfortranarray(noise(MB)[:100_000].reshape(100, 1000))
    manager.store("a", array, tier="hot")
    assert device.used_bytes >= array.nbytes
    got = manager["a"]
    assert np.array_equal(array, got)
    assert got.flags.f_contiguous
    with pytest.raises(ValueError, match="read-only"):
        got[0, 0] = 1
    assert np.array_equal(array[3:5], manager.retrieve("a", region=np.s_[3:5]))
    assert manager.retrieve("a", copy=True).flags.writeable


def test_small_and_immutable_values_stay_in_ram(manager: MemoryManager, device: FakeDevice) -> None:
    """A bus is no place for an integer; they are in the tier all the same."""
    for key, value in {"i": 1, "s": "text", "b": bytes(100_000), "d": {"a": [1]}}.items():
        manager.store(key, value, tier="hot")
        assert ("hot", value) == (manager.get_tier(key), manager[key])
    assert 0 == device.used_bytes


def test_by_itself_only_what_lives_on_the_device_goes_there(
    manager: MemoryManager, device: FakeDevice
) -> None:
    """A NumPy array is answered faster from RAM than over a bus."""
    manager.store("array", noise(MB))
    manager.store("tensor", device.tensor(noise(MB)))
    assert ("warm", "hot") == (manager.get_tier("array"), manager.get_tier("tensor"))


def test_moves_go_through_every_tier_and_back(manager: MemoryManager, device: FakeDevice) -> None:
    """Bit for bit, tensors and trees of them, ties included."""
    shared = device.tensor(noise(MB))
    state = {"w": shared, "tied": shared, "bias": device.tensor(np.arange(3)), "host": noise(800)}
    own = device.used_bytes
    manager.store("model", state, tier="hot")
    for tier in ("warm", "cold", "warm", "hot"):
        manager.migrate("model", tier)
        gc.collect()
        assert (device.used_bytes > own) == (tier == "hot")
    got = manager["model"]
    assert np.array_equal(shared.numpy(), got["w"].numpy())
    assert got["w"].memory.block is got["tied"].memory.block
    assert got["w"].memory.start == got["tied"].memory.start
    assert [0, 1, 2] == got["bias"].numpy().tolist()
    assert np.array_equal(state["host"], got["host"])


def test_a_full_device_makes_room_by_itself(opened: Opener, device: FakeDevice) -> None:
    """The budget is 100 MB, the device has 16: nothing is lost and nothing fails."""
    manager = opened(
        "100 MB", "64 MB", "200 MB", hot_device=device, migration=False, prefetch="off"
    )
    for i in range(20):
        manager.store(f"k{i}", noise(2 * MB, i), tier="hot")
    tiers = {manager.get_tier(f"k{i}") for i in range(20)}
    assert {"hot", "warm"} == tiers
    for i in range(20):
        assert np.array_equal(noise(2 * MB, i), manager[f"k{i}"])


def test_a_read_that_finds_no_memory_makes_room(opened: Opener) -> None:
    """The clone needs as much as the resident."""
    device = FakeDevice(10 * MB)
    manager = opened(
        "100 MB", "64 MB", "200 MB", hot_device=device, migration=False, prefetch="off"
    )
    for i in range(4):
        manager.store(f"t{i}", device.tensor(noise(2 * MB, i)), tier="hot")
        gc.collect()
    hog = [device.tensor(np.zeros((device.room() - MB) // 8))]
    got = manager["t3"]
    assert np.array_equal(noise(2 * MB, 3), got.numpy())
    assert device.trims
    del hog


def test_the_guard_runs_a_function_again(opened: Opener) -> None:
    """The caller's own work comes first, and what it displaces is not lost."""
    device = FakeDevice(10 * MB)
    manager = opened(
        "100 MB", "64 MB", "200 MB", hot_device=device, migration=False, prefetch="off"
    )
    for i in range(4):
        manager.store(f"k{i}", noise(2 * MB, i), tier="hot")
    calls = []

    @manager.oom_guard()
    def work() -> FakeTensor:
        calls.append(1)
        return device.tensor(np.zeros(MB))

    assert MB == work().shape[0]
    assert len(calls) > 1
    assert np.array_equal(noise(2 * MB, 0), manager["k0"])


def test_the_guard_reserves_and_tells(opened: Opener) -> None:
    """As a context it makes room first, and says what to do when that was not enough."""
    device = FakeDevice(10 * MB)
    manager = opened(
        "100 MB", "64 MB", "200 MB", hot_device=device, migration=False, prefetch="off"
    )
    for i in range(4):
        manager.store(f"k{i}", noise(2 * MB, i), tier="hot")
    with manager.oom_guard(reserve="6 MB"):
        assert device.room() >= 6 * MB
    manager.store("again", noise(4 * MB), tier="hot")
    with pytest.raises(MemoryError) as caught, manager.oom_guard():
        device.tensor(np.zeros(2 * MB))
    assert "run the same again" in caught.value.__notes__[0]
    device.tensor(np.zeros(MB))


def test_without_a_device_the_guard_does_nothing(opened: Opener) -> None:
    """Code that runs with and without a GPU stays the same."""
    manager = opened("8 MB", "8 MB", "50 MB", hot_device="cpu")
    with manager.oom_guard(reserve="4 MB"):
        manager.store("k", 1)
    assert 3 == manager.oom_guard()(lambda: 3)()


def test_a_lost_device_raises_and_the_lower_copies_stay(
    opened: Opener, device: FakeDevice, tmp_path: Path
) -> None:
    """What was durable is still there; nothing pretends to be."""
    manager = opened("8 MB", "8 MB", "50 MB", hot_device=device, storage_path=tmp_path)
    manager.store("backed", noise(MB), tier="cold")
    manager.migrate("backed", "hot")
    manager.store("only", noise(MB), tier="hot")
    device.lost = True
    with pytest.raises(StorageError, match="fake:0"):
        manager.retrieve("backed")
    manager.migrate("backed", "cold")
    assert np.array_equal(noise(MB), manager["backed"])
    with pytest.raises(StorageError):
        manager.retrieve("only")
    with pytest.raises(StorageError):
        manager.flush()
    manager.delete("only")
    with pytest.raises(KeyNotFoundError):
        manager.retrieve("only")


def test_a_forked_child_touches_no_device(manager: MemoryManager, device: FakeDevice) -> None:
    """A GPU's context does not survive a fork; values in RAM do."""
    manager.store("tensor", device.tensor(np.arange(9)), tier="hot")
    manager.store("ram", noise(MB), tier="warm")
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            manager.retrieve("tensor")
            said = b"read"
        except ForkedError:
            said = b"refused" if np.array_equal(noise(MB), manager["ram"]) else b"lost"
        os.write(writer, said)
        os._exit(0)
    os.close(writer)
    assert b"refused" == os.read(reader, 100)
    os.waitpid(child, 0)
    os.close(reader)


def test_a_snapshot_and_a_reopen_need_no_device(
    opened: Opener, device: FakeDevice, tmp_path: Path
) -> None:
    """Taken with a GPU, read without one, and the other way round."""
    value = noise(MB)
    with MemoryManager(
        "8 MB", "8 MB", "50 MB", hot_device=device, storage_path=tmp_path / "a"
    ) as one:
        one.store("array", value, tier="hot")
        one.store("tensor", device.tensor(np.arange(4)), tier="hot")
        one.create_snapshot(tmp_path / "snap")
    without = opened("8 MB", "8 MB", "50 MB", hot_device="cpu", storage_path=tmp_path / "b")
    without.restore_snapshot(tmp_path / "snap", wait=True)
    assert np.array_equal(value, without["array"])
    assert [0, 1, 2, 3] == np.asarray(without["tensor"]).tolist()
    again = opened("8 MB", "8 MB", "50 MB", hot_device=device, storage_path=tmp_path / "a")
    assert np.array_equal(value, again["array"])
    again.migrate("tensor", "hot") if again.get_tier("tensor") == "warm" else again.promote(
        "tensor"
    )
    assert [0, 1, 2, 3] == np.asarray(_numpy(again["tensor"])).tolist()


def _numpy(value: Any) -> Any:
    return value.numpy() if isinstance(value, FakeTensor) else value


def test_the_reader_decides_where_it_lies(manager: MemoryManager, device: FakeDevice) -> None:
    """`device=` for tensors, `like=` for another library's array."""
    manager.store("t", device.tensor(np.arange(4)), tier="hot")
    assert isinstance(manager.retrieve("t", device="cpu"), np.ndarray)
    manager.store("a", noise(MB), tier="hot")
    assert isinstance(manager.retrieve("a", device="cpu"), np.ndarray)
    assert isinstance(manager.retrieve("a", like=np), np.ndarray)
    for options in ({"like": "lisp"}, {"device": 3}, {"device": "cpu", "region": np.s_[:1]}):
        with pytest.raises(InvalidOptionError):
            manager.retrieve("a", **options)
    manager.store("d", {"a": 1})
    with pytest.raises(InvalidOptionError, match="one array"):
        manager.retrieve("d", like="numpy")


def test_the_device_is_named_everywhere(manager: MemoryManager, device: FakeDevice) -> None:
    """`repr` and `stats` say what the hot tier is."""
    assert device.title in repr(manager)
    assert device.title == manager.stats().tiers["hot"].medium


def test_an_unknown_device_is_refused() -> None:
    """Before a directory or a lock is touched."""
    for wrong in ("tpu:0", "cuda:x", 3):
        with pytest.raises(InvalidOptionError, match="is unknown"):
            MemoryManager(hot_device=wrong)  # type: ignore[arg-type]
