"""A simulation of many members, larger than RAM, with a snapshot every hour.

Each hour some members are advanced, often the same ones; a few restart from the state of another.
One hour's snapshot is then opened elsewhere: by another process, in another folder. The twins keep
a file per member, as HDF5 or zarr, and copy the folder every hour.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from days.floor_files import FloorFiles, open_snapshot
from days.judging import Bar, Judgement, Run, Scale
from days.running import missing, run
from memories import MemoryManager


@dataclass(frozen=True)
class Plan:
    """How many states, of how many points to a side, and for how many hours."""

    members: int
    side: int
    hours: int

    @property
    def state_bytes(self) -> int:
        """Return the bytes of one state."""
        return 8 * self.side**2

    @property
    def ram(self) -> tuple[int, int]:
        """Return the sizes of hot and warm: a sixth and a third of all states."""
        every = self.members * self.state_bytes
        return every // 6, every // 3


FLOOR = "the floor"
PLANS = {Scale.SMALL: Plan(24, 160, 3), Scale.FULL: Plan(60, 1600, 3)}


def first(member: int, side: int) -> np.ndarray:
    """Return the state that a member starts from: a smooth field."""
    across = np.linspace(0, np.pi * (1 + member % 7), side)
    return np.sin(across)[:, None] * np.cos(across)[None, :] + member


def advance(state: np.ndarray, hour: int) -> np.ndarray:
    """Return the state one step later."""
    moved = np.roll(state, 1, axis=0)
    moved += state
    moved *= 0.5
    moved[hour % len(moved)] += 0.25
    return moved


def steps(plan: Plan, hour: int) -> Iterator[tuple[int, int]]:
    """Yield the member that is advanced, and the member whose state it is advanced from."""
    chance = random.Random(hour)
    active = chance.sample(range(plan.members), plan.members // 4)
    for _ in range(plan.members):
        member = chance.choice(active if chance.random() < 0.8 else range(plan.members))
        yield member, (chance.randrange(plan.members) if chance.random() < 0.1 else member)


def memories(folder: Path, plan: Plan) -> float:
    """Keep the states in three tiers."""
    hot, warm = plan.ram
    sizes = f"{hot} B", f"{warm} B", 10
    with MemoryManager(*sizes, storage_path=folder / "store") as manager:
        for member in range(plan.members):
            manager.store(f"state/{member}", first(member, plan.side), copy=False)
        for hour in range(plan.hours):
            for member, source in steps(plan, hour):
                state = advance(manager.retrieve(f"state/{source}"), hour)
                manager.store(f"state/{member}", state, copy=False)
            manager.create_snapshot(folder / f"hour-{hour}.npz")
        return sum(float(state.sum()) for state in manager.values())


def memories_elsewhere(folder: Path, plan: Plan, hour: int) -> float:
    """Open a snapshot in an empty store."""
    hot, warm = plan.ram
    sizes = f"{hot} B", f"{warm} B", 10
    with MemoryManager(*sizes, storage_path=folder / "elsewhere") as manager:
        manager.restore_snapshot(folder / f"hour-{hour}.npz")
        return sum(float(state.sum()) for state in manager.values())


def hdf5(folder: Path, plan: Plan) -> float:
    """Keep each state in a file of its own."""
    import h5py

    def read(member: int) -> np.ndarray:
        with h5py.File(folder / "store" / f"{member:03}.h5") as file:
            return file["state"][:]

    def write(member: int, state: np.ndarray) -> None:
        with h5py.File(folder / "store" / f"{member:03}.h5", "w") as file:
            file["state"] = state

    return _twin(folder, plan, read, write, _copy)


def hdf5_elsewhere(folder: Path, plan: Plan, hour: int) -> float:
    """Open the copy of the files."""
    import h5py

    total = 0.0
    for path in sorted((folder / f"hour-{hour}").iterdir()):
        with h5py.File(path) as file:
            total += float(file["state"][:].sum())
    return total


def zarr(folder: Path, plan: Plan) -> float:
    """Keep each state as an array of a group."""
    import zarr

    group = zarr.open_group(folder / "store", mode="w")

    def read(member: int) -> np.ndarray:
        return np.asarray(group[f"{member:03}"][:])

    def write(member: int, state: np.ndarray) -> None:
        group.create_array(f"{member:03}", data=state, overwrite=True)

    return _twin(folder, plan, read, write, _copy)


def zarr_elsewhere(folder: Path, plan: Plan, hour: int) -> float:
    """Open the copy of the group."""
    import zarr

    group = zarr.open_group(folder / f"hour-{hour}", mode="r")
    return sum(float(np.asarray(group[name][:]).sum()) for name in sorted(group))


def floor(folder: Path, plan: Plan) -> float:
    """Keep each version in a file, and do no more than the promises ask for."""
    files = FloorFiles(folder / "store")

    def read(member: int) -> np.ndarray:
        return np.frombuffer(files.get(str(member))).reshape(plan.side, plan.side)

    def write(member: int, state: np.ndarray) -> None:
        files.put(str(member), state)

    def snapshot(folder: Path, hour: int) -> None:
        files.snapshot(folder / f"hour-{hour}")

    total = _twin(folder, plan, read, write, snapshot)
    files.close()
    return total


def floor_elsewhere(folder: Path, plan: Plan, hour: int) -> float:
    """Open a snapshot in an empty folder."""
    values = open_snapshot(folder / f"hour-{hour}", folder / "elsewhere").values()
    return sum(float(np.frombuffer(value).sum()) for value in values)


def _copy(folder: Path, hour: int) -> None:
    shutil.copytree(folder / "store", folder / f"hour-{hour}")


def _twin(
    folder: Path,
    plan: Plan,
    read: Callable[[int], np.ndarray],
    write: Callable[[int, np.ndarray], None],
    snapshot: Callable[[Path, int], None],
) -> float:
    (folder / "store").mkdir(exist_ok=True)
    for member in range(plan.members):
        write(member, first(member, plan.side))
    for hour in range(plan.hours):
        for member, source in steps(plan, hour):
            write(member, advance(read(source), hour))
        snapshot(folder, hour)
    return sum(float(read(member).sum()) for member in range(plan.members))


PROGRAMS: dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[str, ...]]] = {
    "memories": (memories, memories_elsewhere, ()),
    "HDF5": (hdf5, hdf5_elsewhere, ("h5py",)),
    "zarr": (zarr, zarr_elsewhere, ("zarr",)),
    FLOOR: (floor, floor_elsewhere, ()),
}


def judge(scale: Scale, folder: Path) -> Judgement:
    """Run the hours, then the opening elsewhere; both must give the same sums."""
    plan = PLANS[scale]
    hours: dict[str, Run] = {}
    elsewhere: dict[str, Run] = {}
    absent: dict[str, str] = {}
    for name, (program, opening, modules) in PROGRAMS.items():
        if why := missing(*modules):
            absent[name] = why
            continue
        hours[name] = run(program, folder / name, plan, name=name)
        elsewhere[name] = run(
            opening, folder / name, plan, plan.hours - 1, name=f"{name}, elsewhere"
        )
        shutil.rmtree(folder / name)
    ours = hours["memories"]
    for name in hours:
        assert np.isclose(ours.answer, hours[name].answer, rtol=1e-12), name
        assert np.isclose(ours.answer, elsewhere[name].answer, rtol=1e-12), name
    twins = [name for name in hours if name not in ("memories", FLOOR)]
    every = plan.members * plan.state_bytes
    # States of the small day lie in the log, which also holds what was overwritten a moment ago.
    most = 2.0 if scale is Scale.SMALL else 1.05
    bars = [
        Bar("bytes on the disk beside states and snapshots, uncompressed",
            ours.disk / (every * (1 + plan.hours)), most, counted=True),
        Bar("peak RAM beside hot and warm together", ours.peak_rss / sum(plan.ram), 1.3),
    ]  # fmt: skip
    if twins:
        fastest = min(hours[name].seconds for name in twins)
        opened = min(elsewhere[name].seconds for name in twins)
        bars += [
            Bar("the hours beside the faster twin", ours.seconds / fastest, 1.0,
                floor=hours[FLOOR].seconds / fastest),
            Bar("opening elsewhere beside it", elsewhere["memories"].seconds / opened, 1.0,
                floor=elsewhere[FLOOR].seconds / opened),
        ]  # fmt: skip
    runs: dict[str, Run] = {}
    for name in hours:
        runs[name] = hours[name]
        runs[f"{name}, elsewhere"] = elsewhere[name]
    title = (
        f"A simulation: {plan.members} states of {plan.state_bytes / 1e6:.3g} MB, "
        f"{plan.hours} hours, a snapshot each"
    )
    return Judgement(title, runs, bars, absent=absent)
