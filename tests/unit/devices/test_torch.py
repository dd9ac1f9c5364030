"""torch through the very code that drives a GPU: its own device room, on the CPU."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from memories import InvalidOptionError, KeyNotFoundError, MemoryManager
from memories.devices.base import DevicePiece

torch = pytest.importorskip("torch", reason="torch is not installed")

MB = 1_000_000
Opener = Callable[..., MemoryManager]


@pytest.fixture
def managed(opened: Opener) -> MemoryManager:
    """Return a manager whose hot tier is torch's memory."""
    from memories.devices.torch_device import TorchDevice

    return opened(
        "64 MB", "64 MB", "200 MB", hot_device=TorchDevice("cpu"), migration=False, prefetch="off"
    )


def tensors() -> dict[str, Any]:
    """Return tensors of several kinds, two of them over one memory."""
    weight = torch.randn(300, 400)
    return {
        "weight": weight,
        "tied": weight,
        "half": torch.randn(70_000).to(torch.bfloat16),
        "last": torch.randn(2, 3, 40, 50).contiguous(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(torch.randn(5)),
        "empty": torch.zeros(0, 3),
        "number": torch.tensor(7),
        "complex": torch.randn(100, dtype=torch.complex64).conj(),
    }


def test_tensors_live_in_the_tier_and_come_back(managed: MemoryManager) -> None:
    """Every kind, as a private clone, ties included."""
    state = tensors()
    managed.store("state", state, tier="hot")
    entry = managed._services.hierarchy.catalog.entries["state"]
    assert "DevicePayload" in type(entry.payload).__name__
    got = managed["state"]
    for name, tensor in state.items():
        assert (type(tensor), tensor.dtype, tensor.stride()) == (
            type(got[name]), got[name].dtype, got[name].stride(),
        )  # fmt: skip
        assert torch.equal(tensor.resolve_conj(), got[name].resolve_conj())
    assert got["weight"].data_ptr() == got["tied"].data_ptr()
    got["weight"].fill_(0)
    assert torch.equal(state["weight"], managed["state"]["weight"])


def test_without_a_copy_it_is_the_resident_memory(managed: MemoryManager) -> None:
    """The memory that a reader uses stays charged, also through views of it."""
    managed.store("t", torch.randn(MB // 4), tier="hot")
    one, two = (managed.retrieve("t", copy=False) for _ in range(2))
    assert one.data_ptr() == two.data_ptr()
    view = one[10:20].detach()
    del one, two
    managed.delete("t")
    gc.collect()
    assert managed.stats().tiers["hot"].used_bytes >= MB
    del view
    gc.collect()
    assert 0 == managed.stats().tiers["hot"].used_bytes


def test_moves_keep_every_bit(managed: MemoryManager) -> None:
    """Through RAM and the disk, and back onto the device."""
    state = tensors()
    managed.store("state", state, tier="hot")
    for tier in ("cold", "warm", "hot"):
        managed.migrate("state", tier)
        for name, tensor in state.items():
            assert torch.equal(tensor.resolve_conj(), managed["state"][name].resolve_conj())


def test_large_transfers_go_by_chunks() -> None:
    """More than all chunks together, both ways."""
    from memories.devices.torch_device import TorchDevice

    device = TorchDevice("cpu")
    source = np.random.default_rng(0).integers(0, 255, 100_000_000, np.uint8)
    memory = device.allocate(source.nbytes)
    device.upload(memory, [DevicePiece(0, memoryview(source))])
    target = np.empty_like(source)
    device.download(memory, [DevicePiece(0, memoryview(target))])
    assert np.array_equal(source, target)


def test_a_reader_may_ask_for_another_library(managed: MemoryManager) -> None:
    """By DLPack where it can."""
    managed.store("array", np.arange(50_000.0), tier="hot")
    got = managed.retrieve("array", like="torch")
    assert torch.equal(torch.arange(50_000, dtype=torch.float64), got)
    got[0] = 5
    managed.store("tensor", torch.arange(50_000.0))
    assert isinstance(managed.retrieve("tensor", like=np), np.ndarray)
    assert managed.retrieve("tensor", like=torch, device="cpu").device.type == "cpu"
    with pytest.raises(InvalidOptionError, match="cuda"):
        managed.retrieve("array", like="torch", device="cuda:7")


def test_it_knows_running_out_of_memory_from_other_faults() -> None:
    """One is answered by making room, the other is not."""
    from memories.devices import DeviceFullError, DeviceLostError
    from memories.devices.torch_device import TorchDevice

    device = TorchDevice("cpu")
    asked: list[int] = []

    def refuse(nbytes: int) -> Any:
        with device._translated(nbytes):
            raise torch.OutOfMemoryError("CUDA out of memory")

    def make_room(nbytes: int) -> bool:
        asked.append(nbytes)
        return len(asked) < 3

    device.make_room = make_room
    with pytest.raises(DeviceFullError, match="has no memory for"):
        device.with_room(refuse, 5)
    assert [5, 5, 5] == asked
    with pytest.raises(DeviceLostError, match="failed"), device._translated():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


class Twin(torch.nn.Module):  # type: ignore[misc]
    """A model with tied weights, buffers and small leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(1000, 600)
        self.norm = torch.nn.BatchNorm1d(600)
        self.head = torch.nn.Linear(600, 1000, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, index: Any) -> Any:
        """Return scores."""
        return self.head(self.norm(self.embed(index)))


@pytest.mark.parametrize("displaced", [None, "warm", "cold"])
def test_a_parked_model_comes_back_as_it_was(managed: MemoryManager, displaced: str | None) -> None:
    """Bit for bit, with ties, buffers and gradients, and an optimizer that still knows it."""
    from memories.torch import park, restore

    model = Twin()
    model(torch.arange(32)).sum().backward()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    grad = model.embed.weight.grad.clone()
    park(model, managed, "twin")
    assert 0 == sum(tensor.numel() for tensor in model.state_dict().values())
    if displaced:
        for key in list(managed.scan("twin/")):
            managed.migrate(key, displaced)
    restore(model, managed, "twin")
    for name, tensor in model.state_dict().items():
        assert torch.equal(before[name], tensor)
    assert torch.equal(grad, model.embed.weight.grad)
    assert model.head.weight is model.embed.weight
    assert [] == list(managed.scan())
    optimizer.step()
    assert not torch.equal(before["embed.weight"], model.embed.weight)
    model(torch.arange(32))


def test_parking_in_hot_copies_nothing(managed: MemoryManager) -> None:
    """The memory only changes hands; so do models that are larger than what is free."""
    from memories.torch import park, restore

    model = Twin()
    address = model.embed.weight.data_ptr()
    park(model, managed, "twin")
    restore(model, managed, "twin")
    assert torch.is_tensor(model.embed.weight.data)
    park(model, managed, "twin")
    with pytest.raises(InvalidOptionError, match="restore it first"):
        park(Twin(), managed, "twin")
    with pytest.raises(InvalidOptionError, match="a different one"):
        restore(torch.nn.Linear(2, 2), managed, "twin")
    with pytest.raises(KeyNotFoundError):
        restore(model, managed, "absent")
    restore(model, managed, "twin")
    assert address


def test_models_larger_than_the_tier_take_turns(opened: Opener) -> None:
    """Two models, and room for one: the other waits below, and nothing is lost."""
    from memories.devices.torch_device import TorchDevice
    from memories.torch import park, restore

    manager = opened(
        "4 MB", "64 MB", "200 MB", hot_device=TorchDevice("cpu"), migration=False, prefetch="off"
    )
    models = [Twin(), Twin()]
    before = [model.embed.weight.detach().clone() for model in models]
    for i, model in enumerate(models):
        park(model, manager, f"m{i}")
    for _ in range(2):
        for i, model in enumerate(models):
            restore(model, manager, f"m{i}")
            assert torch.equal(before[i], model.embed.weight)
            park(model, manager, f"m{i}")


def test_a_model_that_cannot_be_parked_is_as_it_was(opened: Opener) -> None:
    """Half a model in the tiers would be none anywhere."""
    from memories.torch import park

    manager = opened("3 MB", "1 MB", "1 MB", hot_device="cpu", migration=False, prefetch="off")
    model = torch.nn.Sequential(torch.nn.Linear(500, 1000), torch.nn.Linear(1000, 500))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(MemoryError):
        park(model, manager, "m")
    assert [] == list(manager.scan())
    for name, tensor in model.state_dict().items():
        assert torch.equal(before[name], tensor)
