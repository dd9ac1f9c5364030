"""Day 4: training on a data set whose items take an expensive transform, and checkpoints.

Two workers of a DataLoader make the items of three epochs. Each twin keeps the transformed items in
its own way; the judge counts the transforms of each epoch, and compares what the model learnt.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from days.judging import Bar, Judgement, Run, Scale
from days.running import missing, race, run

EPOCHS = 3
SIDE = 224
FLOOR = "the floor"


def transform(number: int, calls: Path) -> Any:
    """Make an item from its raw picture, with a filter in the frequency domain."""
    with calls.open("ab", buffering=0) as file:
        file.write(b".")
    raw = np.random.default_rng(number).integers(0, 255, (3, SIDE, SIDE)).astype(np.float32)
    wave = np.fft.rfft2(raw)
    wave[:, 20:-20] *= 0.1
    item = np.fft.irfft2(wave, s=(SIDE, SIDE)).astype(np.float32)
    return (item - item.mean()) / item.std()


class Items:
    """A data set, as torch wants it: a function that makes an item, and their number."""

    def __init__(self, make: Callable[[int], Any], count: int) -> None:
        self.make, self.count = make, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Any:
        return self.make(number)


def loader_of(make: Callable[[int], Any], count: int) -> Any:
    """Return a loader that gives the items in batches, in another order each epoch."""
    import torch

    return torch.utils.data.DataLoader(
        Items(make, count),
        batch_size=16,
        shuffle=True,
        num_workers=2,
        multiprocessing_context="fork",
        generator=torch.Generator().manual_seed(1),
    )


def train(batches: Callable[[], Iterator[Any]], calls: Path) -> dict[str, Any]:
    """Train a small model; return its last loss, and the transforms and seconds of each epoch."""
    import torch

    torch.manual_seed(1)
    model = torch.nn.Sequential(
        torch.nn.AvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(3 * (SIDE // 8) ** 2, 1)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    made, seconds, loss = [], [], torch.zeros(())
    calls.touch()
    for _ in range(EPOCHS):
        started, before = time.perf_counter(), calls.stat().st_size
        for batch in batches():
            loss = (model(batch) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        made.append(calls.stat().st_size - before)
        seconds.append(time.perf_counter() - started)
    return {"loss": loss.item(), "transforms": made, "seconds": seconds}


def nothing(folder: Path, count: int) -> dict[str, Any]:
    """Transform in every epoch."""
    calls = folder / "calls"
    loader = loader_of(lambda number: transform(number, calls), count)
    return train(lambda: iter(loader), calls)


def cached(folder: Path, count: int) -> dict[str, Any]:
    """Decorate what makes an item."""
    from memories import MemoryManager

    calls = folder / "calls"
    with MemoryManager("0.5GB", "0.5GB", 10, storage_path=folder / "store") as manager:

        @manager.cache
        def make(number: int) -> Any:
            return transform(number, calls)

        loader = loader_of(lambda number: np.array(make(number)), count)
        return train(lambda: iter(loader), calls)


def by_hand(folder: Path, count: int) -> dict[str, Any]:
    """Let the workers read, and let the training loop store what they had to make."""
    from memories import MemoryManager

    calls = folder / "calls"
    with MemoryManager("0.5GB", "0.5GB", 10, storage_path=folder / "store") as manager:

        def make(number: int) -> Any:
            kept = manager.get(f"item/{number}")
            if kept is not None:
                return number, False, np.array(kept)
            return number, True, transform(number, calls)

        loader = loader_of(make, count)

        def batches() -> Iterator[Any]:
            for numbers, new, batch in loader:
                for number, is_new, item in zip(numbers, new, batch, strict=True):
                    if is_new:
                        manager.store(f"item/{number}", item.numpy())
                yield batch

        return train(batches, calls)


def torch_files(folder: Path, count: int) -> dict[str, Any]:
    """Let the workers keep each item in a file of `torch.save`."""
    import torch

    calls = folder / "calls"

    def make(number: int) -> Any:
        path = folder / f"{number}.pt"
        if path.exists():
            return torch.load(path)
        item = torch.from_numpy(transform(number, calls))
        torch.save(item, path)
        return item

    loader = loader_of(make, count)
    return train(lambda: iter(loader), calls)


def lmdb_file(folder: Path, count: int) -> dict[str, Any]:
    """Let the workers keep the items in one LMDB."""
    import lmdb

    calls = folder / "calls"
    opened: dict[int, Any] = {}  # By process: LMDB must not be used across a fork.

    def make(number: int) -> Any:
        if os.getpid() not in opened:
            opened[os.getpid()] = lmdb.open(str(folder / "lmdb"), map_size=10**10, sync=False)
        database = opened[os.getpid()]
        with database.begin(buffers=True) as transaction:
            kept = transaction.get(str(number).encode())
            if kept is not None:
                return np.frombuffer(kept, np.float32).reshape(3, SIDE, SIDE).copy()
        item = transform(number, calls)
        with database.begin(write=True) as transaction:
            transaction.put(str(number).encode(), item)
        return item

    loader = loader_of(make, count)
    return train(lambda: iter(loader), calls)


def floor(folder: Path, count: int) -> dict[str, Any]:
    """Let the workers keep the items in logs, and do no more than the promises ask for."""
    from days.floor import Floor

    calls = folder / "calls"
    opened: dict[int, Floor] = {}  # By process: each one appends to a log of its own.

    def make(number: int) -> Any:
        if os.getpid() not in opened:
            opened[os.getpid()] = Floor(folder / "floor")
        kept = opened[os.getpid()].get(str(number))
        if kept is not None:
            return np.frombuffer(kept, np.float32).reshape(3, SIDE, SIDE).copy()
        item = transform(number, calls)
        opened[os.getpid()].put({str(number): item})
        return item

    loader = loader_of(make, count)
    return train(lambda: iter(loader), calls)


def large_model(width: int, seed: int) -> Any:
    """Return a model of eight layers."""
    import torch

    torch.manual_seed(seed)
    return torch.nn.Sequential(*(torch.nn.Linear(width, width) for _ in range(8)))


def checkpoint(folder: Path, width: int) -> dict[str, float]:
    """Keep and restore a checkpoint in both ways, in turns; return the best seconds of each."""
    import torch

    from memories import MemoryManager
    from memories.torch import park, restore

    model = large_model(width, 1)
    right = [parameter.detach().clone() for parameter in model.parameters()]
    seconds: dict[str, float] = {}

    def timed(name: str, action: Callable[[], Any]) -> None:
        started = time.perf_counter()
        action()
        seconds[name] = min(seconds.get(name, 1e9), time.perf_counter() - started)

    def check() -> None:
        assert all(map(torch.equal, right, model.parameters()))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()

    path = folder / "checkpoint.pt"

    def save() -> None:
        """Keep the earlier checkpoint until the new one is whole, as the manager does."""
        torch.save(model.state_dict(), folder / "checkpoint.new")
        (folder / "checkpoint.new").replace(path)

    with MemoryManager("1GB", "2GB", 10, storage_path=folder / "store") as manager:
        stores = [
            ("memories, store", lambda: manager.store("checkpoint", model.state_dict(), "cold")),
            ("torch, save", save),
        ]
        for _ in range(4):
            stores.reverse()  # The first one makes room in the page cache for the other.
            for name, store in stores:
                timed(name, store)
            check()
            timed(
                "memories, restore",
                lambda: model.load_state_dict(manager.retrieve("checkpoint")),
            )
            check()
            timed("torch, load", lambda: model.load_state_dict(torch.load(path)))
            timed("memories, park", lambda: park(model, manager, "model"))
            timed("memories, take back", lambda: restore(model, manager, "model"))
    return seconds


PROGRAMS: dict[str, tuple[Callable[..., Any], str]] = {
    "nothing": (nothing, ""),
    "memories, cached": (cached, ""),
    "memories, by hand": (by_hand, ""),
    "torch.save files": (torch_files, ""),
    "LMDB": (lmdb_file, "lmdb"),
    FLOOR: (floor, ""),
}


def judge(scale: Scale, folder: Path) -> Judgement:
    """Train with every twin, then keep and restore checkpoints."""
    judgement = Judgement("Training: three epochs, two workers, checkpoints", {}, [])
    if why := missing("torch"):
        judgement.absent = dict.fromkeys(("memories", "torch.save files", "LMDB"), why)
        return judgement
    count, width, rounds = (48, 256, 1) if scale is Scale.SMALL else (600, 4_000, 1)
    programs: dict[str, Callable[[Path], Run]] = {}
    for name, (program, needs) in PROGRAMS.items():
        if needs and (why := missing(needs)):
            judgement.absent[name] = why
            continue
        programs[name] = lambda place, program=program, name=name: run(
            program, place, count, name=name
        )
    runs = race(programs, folder, rounds=rounds)
    for name, one in runs.items():
        assert one.answer["loss"] == runs["nothing"].answer["loss"], name
        assert one.answer["transforms"][0] == count, name
        for epoch, (made, took) in enumerate(
            zip(one.answer["transforms"], one.answer["seconds"], strict=True), 1
        ):
            judgement.facts[f"{name}: seconds of epoch {epoch}"] = round(took, 2)
            if name.startswith("memories") and epoch > 1:
                bar = f"{name}: transforms in epoch {epoch}"
                judgement.bars.append(Bar(bar, made, 0, counted=True))
    spent = {name: sum(one.answer["seconds"]) for name, one in runs.items()}  # Without imports.
    best = min(spent[name] for name in ("torch.save files", "LMDB") if name in spent)
    for name in ("memories, cached", "memories, by hand"):
        judgement.bars.append(
            Bar(f"{name}: epochs, of the best twin's", spent[name] / best, 1,
                floor=spent[FLOOR] / best)
        )  # fmt: skip
    kept = run(checkpoint, folder / "checkpoint", width, name="checkpoints, both")
    took = kept.answer
    judgement.runs = {**runs, kept.program: kept}
    judgement.facts |= {f"{name} a checkpoint": round(value, 3) for name, value in took.items()}
    judgement.bars += [
        Bar("store a checkpoint, of torch.save", took["memories, store"] / took["torch, save"], 1),
        Bar("restore it, of torch.load", took["memories, restore"] / took["torch, load"], 1),
    ]
    return judgement
