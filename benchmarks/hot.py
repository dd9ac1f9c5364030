"""What the hot tier costs on a device, beside the best that torch does with pinned memory.

Runs on a CUDA device; with `--device cpu` on torch's CPU memory, to try the script itself. Needs
nothing but this package and torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _race import machine, race, show

from memories import MemoryManager
from memories.devices.base import DevicePiece
from memories.devices.torch_device import TorchDevice
from memories.torch import park, restore

MB = 10**6


def main() -> None:
    """Print every figure of the hot tier."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--largest", type=int, default=1000, help="megabytes of the largest copy")
    parser.add_argument("--model", type=int, default=4000, help="megabytes of the parked model")
    parser.add_argument("--tensors", type=int, default=100_000, help="how many small tensors")
    arguments = parser.parse_args()
    device = TorchDevice(arguments.device)
    print(f"{machine()}; torch {torch.__version__}; {device.title}")
    if arguments.device != "cpu":
        print(torch.cuda.get_device_name(arguments.device))
    for megabytes in (8, 100, 1000):
        if megabytes <= arguments.largest:
            transfers(device, megabytes)
    with MemoryManager(
        f"{4 * arguments.model} MB", "16 GB", "64 GB", hot_device=device, migration=False
    ) as manager:
        reads(manager, device, min(100, arguments.model))
        models(manager, device, arguments.model)
        crowds(manager, device, arguments.tensors)


def synchronised(device: TorchDevice, work: Callable[[], object]) -> Callable[[], None]:
    """Return `work` that ends when the device is through with it."""
    cuda = device.name != "cpu"

    def run() -> None:
        result = work()
        if cuda:
            torch.cuda.synchronize()
        del result

    return run


def transfers(device: TorchDevice, megabytes: int) -> None:
    """Race copies of pageable memory through our chunks against one copy of pinned memory."""
    nbytes = megabytes * MB
    cuda = device.name != "cpu"
    pinned = torch.empty(nbytes, dtype=torch.uint8, pin_memory=cuda).random_(0, 255)
    there = torch.empty(nbytes, dtype=torch.uint8, device=device.name)
    pageable = np.empty(nbytes, np.uint8)
    piece = [DevicePiece(0, memoryview(pageable))]
    up = {
        "torch, pinned": lambda: there.copy_(pinned, non_blocking=True),
        "torch, pageable": lambda: there.copy_(torch.from_numpy(pageable)),
        "upload": lambda: device.upload(there, piece),
    }
    down = {
        "torch, pinned": lambda: pinned.copy_(there, non_blocking=True),
        "torch, pageable": lambda: torch.from_numpy(pageable).copy_(there),
        "download": lambda: device.download(there, piece),
    }
    for title, candidates in (("to the device", up), ("from the device", down)):
        figures = race({name: synchronised(device, work) for name, work in candidates.items()})
        show(
            f"{megabytes} MB {title} (bar: 1.11)",
            figures,
            base="torch, pinned",
            unit=1e3,
            label="ms",
        )


def reads(manager: MemoryManager, device: TorchDevice, megabytes: int) -> None:
    """Race reads of a resident tensor against `clone()`."""
    tensor = torch.randn(megabytes * MB // 4, device=device.name)
    manager.store("t", tensor, tier="hot")
    figures = race({
        "clone()": synchronised(device, tensor.clone),
        "retrieve": synchronised(device, lambda: manager["t"]),
        "retrieve(copy=False)": lambda: manager.retrieve("t", copy=False),
    })  # fmt: skip
    show(
        f"{megabytes} MB resident (bars: 1.2; 10 us)", figures, base="clone()", unit=1e6, label="us"
    )
    manager.delete("t")


def models(manager: MemoryManager, device: TorchDevice, megabytes: int) -> None:
    """Race parking a model to RAM and back against one copy of as many pinned bytes."""
    side = 4096
    layers = max(1, megabytes * MB // (side * side * 4))
    model = torch.nn.Sequential(*[torch.nn.Linear(side, side, bias=False) for _ in range(layers)])
    model = model.to(device.name)
    nbytes = layers * side * side * 4
    pinned = torch.empty(nbytes, dtype=torch.uint8, pin_memory=device.name != "cpu")
    there = torch.empty(nbytes, dtype=torch.uint8, device=device.name)

    def take_turns(tier: str) -> None:
        park(model, manager, "model")
        if tier != "hot":
            for key in list(manager.scan("model/")):
                manager.migrate(key, tier)
        restore(model, manager, "model")

    def both_ways() -> None:
        pinned.copy_(there, non_blocking=True)
        there.copy_(pinned, non_blocking=True)

    figures = race({
        "pinned, both ways": synchronised(device, both_ways),
        "park and restore, in hot": synchronised(device, lambda: take_turns("hot")),
        "park to RAM and restore": synchronised(device, lambda: take_turns("warm")),
    }, rounds=3)  # fmt: skip
    title = f"a model of {nbytes // MB} MB (bar: 1.25)"
    show(title, figures, base="pinned, both ways", unit=1e3, label="ms")


def crowds(manager: MemoryManager, device: TorchDevice, count: int) -> None:
    """Race many small tensors against their bytes in one tensor."""
    state: dict[str, Any] = {
        f"t{i}": torch.full((64,), i, device=device.name) for i in range(count)
    }
    one = torch.zeros(count * 64, dtype=torch.int64, device=device.name)

    def through(key: str, value: object) -> None:
        manager.store(key, value, tier="hot")
        manager.retrieve(key)

    figures = race({
        "one tensor": synchronised(device, lambda: through("one", one)),
        f"{count:,} tensors": synchronised(device, lambda: through("many", state)),
    }, rounds=3)  # fmt: skip
    show(
        "small tensors, stored and read (bar: 2)", figures, base="one tensor", unit=1e3, label="ms"
    )


if __name__ == "__main__":
    main()
