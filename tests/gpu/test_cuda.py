"""The hot tier on a real CUDA device: `make test-gpu` on a machine that has one.

The same promises as on the fake device; what can only be seen here are streams, pinned memory, the
allocator's cache and DLPack between libraries.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from memories import MemoryManager

pytestmark = pytest.mark.gpu

MB = 1_000_000


@pytest.fixture(scope="module")
def torch() -> Any:
    """Return torch, which sees a device."""
    module = pytest.importorskip("torch")
    if not module.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    return module


@pytest.fixture
def manager(torch: Any) -> Iterator[MemoryManager]:
    """Return a manager whose hot tier is the first device."""
    with MemoryManager("2 GB", "4 GB", "8 GB", hot_device="cuda:0", migration=False) as made:
        yield made


def test_a_tensor_comes_back_on_its_device(torch: Any, manager: MemoryManager) -> None:
    """As a private clone."""
    for dtype in (torch.float32, torch.bfloat16, torch.int8, torch.complex64, torch.bool):
        tensor = torch.randn(1000, 1000, device="cuda:0").to(dtype)
        manager.store("t", tensor, tier="hot")
        expected = tensor.clone()
        tensor.zero_()
        got = manager["t"]
        assert (expected.device, expected.dtype) == (got.device, got.dtype)
        assert torch.equal(expected, got)
        got.zero_()
        assert torch.equal(expected, manager["t"])


def test_a_clone_waits_for_the_stream_that_made_the_value(
    torch: Any, manager: MemoryManager
) -> None:
    """A store on a busy stream, a read on another: the kernels before it come first."""
    stream = torch.cuda.Stream()
    for _ in range(20):
        with torch.cuda.stream(stream):
            torch.cuda._sleep(50_000_000)
            tensor = torch.full((4 << 20,), 7.0, device="cuda:0")
            manager.store("t", tensor, tier="hot")
            tensor.zero_()
        assert bool((manager["t"] == 7.0).all())


def test_without_a_copy_it_is_the_resident_buffer(torch: Any, manager: MemoryManager) -> None:
    """And deleting it frees nothing that is still held."""
    manager.store("t", torch.randn(64 * MB // 4, device="cuda:0"), tier="hot")
    one = manager.retrieve("t", copy=False)
    assert one.data_ptr() == manager.retrieve("t", copy=False).data_ptr()
    manager.delete("t")
    gc.collect()
    assert manager.stats().tiers["hot"].used_bytes >= 64 * MB
    before = torch.cuda.memory_allocated()
    del one
    gc.collect()
    assert torch.cuda.memory_allocated() <= before - 64 * MB
    assert 0 == manager.stats().tiers["hot"].used_bytes


def test_host_arrays_travel_by_pinned_chunks(manager: MemoryManager) -> None:
    """More than all chunks together, and back bit for bit."""
    array = np.random.default_rng(0).integers(0, 255, 300 * MB, np.uint8)
    manager.store("a", array, tier="hot")
    assert np.array_equal(array, manager["a"])
    for tier in ("warm", "cold", "hot"):
        manager.migrate("a", tier)
    assert np.array_equal(array, manager["a"])


def test_running_out_of_memory_demotes(torch: Any) -> None:
    """The tier is configured far beyond the device; nothing is lost, nothing is killed."""
    free, _ = torch.cuda.mem_get_info()
    hog = torch.empty(max(0, int(free - 3e9)), dtype=torch.uint8, device="cuda:0")
    with MemoryManager("500 GB", "8 GB", "20 GB", hot_device="cuda:0", migration=False) as manager:
        arrays = [np.full(100 * MB, i, np.uint8) for i in range(40)]
        for i, array in enumerate(arrays):
            manager.store(f"k{i}", array, tier="hot")
        assert {"hot", "warm"} <= {manager.get_tier(f"k{i}") for i in range(40)}

        @manager.oom_guard()
        def work() -> Any:
            return torch.empty(2_000_000_000, dtype=torch.uint8, device="cuda:0")

        assert 2_000_000_000 == work().numel()
        for i, array in enumerate(arrays):
            assert np.array_equal(array, manager[f"k{i}"])
    del hog
    torch.cuda.empty_cache()


def test_demotion_frees_device_memory(torch: Any, manager: MemoryManager) -> None:
    """Not only in the books."""
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    manager.store("t", torch.randn(100 * MB, device="cuda:0"), tier="hot")
    gc.collect()
    assert torch.cuda.memory_allocated() >= before + 400 * MB
    manager.demote("t")
    gc.collect()
    assert torch.cuda.memory_allocated() <= before + MB


def test_models_take_turns(torch: Any, manager: MemoryManager) -> None:
    """Bit for bit, ties and buffers included."""
    from memories.torch import park, restore

    model = torch.nn.Sequential(
        torch.nn.Linear(2000, 2000), torch.nn.BatchNorm1d(2000), torch.nn.Linear(2000, 2000)
    ).cuda()
    model[2].weight = model[0].weight
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for tier in (None, "warm", "cold"):
        park(model, manager, "model")
        if tier:
            for key in list(manager.scan("model/")):
                manager.migrate(key, tier)
        restore(model, manager, "model")
        for name, tensor in model.state_dict().items():
            assert torch.equal(before[name], tensor)
        assert model[2].weight is model[0].weight
        assert model[0].weight.is_cuda


def test_a_hundred_thousand_small_tensors_are_one_allocation(
    torch: Any, manager: MemoryManager
) -> None:
    """They would cost a launch and a cache block each."""
    state = {f"t{i}": torch.full((16,), i, device="cuda:0") for i in range(100_000)}
    torch.cuda.synchronize()
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    manager.store("state", state, tier="hot")
    assert torch.cuda.memory_stats()["allocation.all.allocated"] - before < 100
    got = manager["state"]
    assert all(int(got[f"t{i}"][0]) == i for i in range(0, 100_000, 9973))


def test_cupy_arrays_live_there_too(torch: Any, manager: MemoryManager) -> None:
    """By DLPack, into the memory of torch, and out of it again."""
    cupy = pytest.importorskip("cupy")
    array = cupy.asfortranarray(cupy.arange(1e6).reshape(1000, 1000))
    manager.store("c", array, tier="hot")
    array[:] = 0
    got = manager["c"]
    assert isinstance(got, cupy.ndarray)
    assert got.flags.f_contiguous
    assert bool((got == cupy.arange(1e6).reshape(1000, 1000)).all())
    handed = manager.retrieve("c", like="torch")
    assert handed.is_cuda


def test_jax_arrays_live_there_too(torch: Any, manager: MemoryManager) -> None:
    """As long as this JAX sees the device at all."""
    jax = pytest.importorskip("jax")
    if jax.default_backend() != "gpu":
        pytest.skip("this JAX sees no GPU")
    array = jax.numpy.arange(100_000, dtype="float32")
    manager.store("j", array, tier="hot")
    got = manager["j"]
    assert isinstance(got, type(array))
    assert np.array_equal(np.asarray(array), np.asarray(got))


def test_the_device_is_found_by_itself(torch: Any) -> None:
    """`"auto"`, once torch is loaded."""
    with MemoryManager("1 GB", "1 GB", "1 GB") as manager:
        assert "cuda:0" in repr(manager)


def test_cupy_alone_drives_a_device() -> None:
    """Where there is no torch."""
    pytest.importorskip("cupy")
    from memories.devices.cupy_device import CupyDevice

    with MemoryManager("1 GB", "1 GB", "2 GB", hot_device=CupyDevice("cuda:0")) as manager:
        array = np.random.default_rng(0).random(5 * MB)
        manager.store("a", array, tier="hot")
        assert np.array_equal(array, manager["a"])
        manager.migrate("a", "cold")
        assert np.array_equal(array, manager["a"])
