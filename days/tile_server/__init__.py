"""A tile server with 64 MB of RAM over a raster of 604 MB.

Three kinds of tiles: *cut* out of a memory map; *drawn*, coloured and lit by the server; and
*remote*, cut after 5 ms of waiting. Each program runs twice over its folder: fresh, then warm.
All must answer the same bytes, of which each has a checksum taken, as if it were sent.

To cut a tile out of a file in the page cache costs what any cache pays to read its own copy from
another file, or less. So no cache on the disk can win there, and the best that one can do is not
to keep what is cheaper to make: the bars of cut tiles are shown as they are worded, and those of
drawn tiles are the ones that a server has to meet. What no policy for the same RAM can avoid, where
a source is slow, is counted by Belady's rule, which knows what will be asked for.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from days.judging import Bar, Judgement, Run, Scale
from days.running import missing, run
from days.tile_server import floors, ours, peers
from days.tile_server.raster import (
    TILE_BYTES,
    Answer,
    World,
    best_hits,
    lru_hits,
    walk,
    write_raster,
)

MB = 10**6
WORLDS = {
    Scale.SMALL: World(Path(), 10, 250, 2, 2 * MB, 6 * MB),
    Scale.FULL: World(Path(), 48, 6000, 4, 16 * MB, 48 * MB),
}
KINDS: dict[str, dict[str, Any]] = {
    "cut": {},
    "drawn": {"drawn": True},
    "remote": {"latency": 0.005},
}
CACHED, BY_HAND, BY_REGION = "memories, @cache", "memories, by hand", "memories, region="
LRU, DISKCACHE, JOBLIB, GDAL = "lru_cache", "diskcache", "joblib", "GDAL's block cache"
NO_CACHE = "no cache"
FLOORS = {CACHED: "the floor, cached", BY_HAND: "the floor, by hand"}
Program = Callable[[Path, World], Answer]
PROGRAMS: dict[str, tuple[Program, tuple[str, ...]]] = {
    CACHED: (ours.cached, ()),
    BY_HAND: (ours.by_hand, ()),
    BY_REGION: (ours.by_region, ()),
    NO_CACHE: (peers.no_cache, ()),
    LRU: (peers.lru, ()),
    DISKCACHE: (peers.diskcache, ("diskcache",)),
    JOBLIB: (peers.joblib, ("joblib",)),
    GDAL: (peers.gdal, ("rasterio",)),
    FLOORS[CACHED]: (floors.cached, ()),
    FLOORS[BY_HAND]: (floors.by_hand, ()),
}
# The others keep nothing between runs.
TWICE = (CACHED, BY_HAND, BY_REGION, DISKCACHE, JOBLIB, *FLOORS.values())
ONCE_A_DAY = (BY_REGION, JOBLIB, GDAL)  # No bar needs a second round of them.
SERVED = {
    "cut": tuple(PROGRAMS),
    "drawn": (CACHED, BY_HAND, NO_CACHE, LRU, DISKCACHE, *FLOORS.values()),
    "remote": (CACHED, BY_HAND, LRU, *FLOORS.values()),
}
SMALL = {
    "cut": (CACHED, BY_REGION, LRU),
    "drawn": (CACHED, LRU),
    "remote": (CACHED, BY_HAND, LRU, *FLOORS.values()),
}
ROUNDS = {"cut": 3, "drawn": 1, "remote": 1}
Runs = dict[str, Run]


def judge(scale: Scale, folder: Path) -> Judgement:
    """Serve each kind of tiles by each program, and compare the answers."""
    small = scale is Scale.SMALL
    world = replace(WORLDS[scale], path=folder / "raster.npy")
    folder.mkdir(parents=True, exist_ok=True)
    write_raster(world)
    absent = {name: why for name, (_, needs) in PROGRAMS.items() if (why := missing(*needs))}
    if GDAL not in absent and not small:
        peers.write_geotiff(world)
    keys = list(walk(world))
    least, different = lru_hits(keys, world.room) / world.reads, len(set(keys))
    shown: Runs = {}
    bars: list[Bar] = []
    facts = {
        "reads": world.reads,
        "different tiles": different,
        "share that LRU answers": round(least, 3),
    }
    for kind, how in KINDS.items():
        here = replace(world, **how)
        names = [name for name in (SMALL if small else SERVED)[kind] if name not in absent]
        fresh, warm = _run(here, names, folder / kind, rounds=1 if small else ROUNDS[kind])
        for runs in (fresh, warm):
            assert len({one.answer.checksum for one in runs.values()}) == 1, kind
        for name, one in fresh.items():
            shown[f"{name}, {kind}"] = one
            if name in TWICE:
                shown[f"{name}, {kind}, warm"] = warm[name]
        for name in (CACHED, BY_HAND):
            if name not in fresh:
                continue
            title = f"{name}, {kind}"
            bars += _bars(title, name, fresh, warm, least)
            if kind == "remote":
                each = fresh[LRU].answer.seconds / fresh[LRU].answer.made
                facts["ms for a remote tile"] = round(1000 * each, 2)
                misses = world.reads - best_hits(keys, world.room)
                floor = fresh[FLOORS[name]]
                bars += _bars_of_remote(
                    title, fresh[name], warm[name], floor, each * misses, different
                )
    pixels = world.tiles**2 * TILE_BYTES / MB
    title = f"A tile server: {world.reads:,} reads of a raster of {pixels:.0f} MB"
    return Judgement(title, shown, bars, facts, absent)


def _bars(title: str, name: str, fresh: Runs, warm: Runs, least: float) -> list[Bar]:
    """Return the bars that one of our programs has to meet beside the others."""
    bars = []
    floor = FLOORS[name]

    def beside(what: str, runs: Runs, seconds: float, limit: float) -> Bar:
        least_seconds = runs[floor].seconds / seconds
        return Bar(f"{title}: {what}", runs[name].seconds / seconds, limit, floor=least_seconds)

    if NO_CACHE in fresh:
        bars.append(beside("beside no cache", fresh, fresh[NO_CACHE].seconds, 0.9))
    if DISKCACHE in fresh:
        bars.append(beside("beside diskcache", fresh, fresh[DISKCACHE].seconds, 0.5))
        better = min(warm[DISKCACHE].seconds, warm[LRU].seconds)
        bars.append(beside("warm, beside the better twin", warm, better, 1.0))
    for run_, when in ((fresh[name], ""), (warm[name], ", warm")):
        less = max(0.0, least - run_.answer.from_ram)
        bars.append(Bar(f"{title}{when}: share of reads that LRU has in RAM, and we not", less, 0))
    return bars


def _bars_of_remote(
    title: str, fresh: Run, warm: Run, floor: Run, best: float, tiles: int
) -> list[Bar]:
    """Return the bars where a source is slow: nothing is asked of it twice, in any run."""
    return [
        Bar(f"{title}: beside the best policy for this RAM", fresh.seconds / best, 1.02,
            floor=floor.seconds / best),
        Bar(f"{title}: tiles made twice", fresh.answer.made - tiles, 0, counted=True),
        Bar(f"{title}: tiles made in the second run", warm.answer.made, 0, counted=True),
        Bar(f"{title}: bytes on the disk for each of a tile",
            fresh.disk / (tiles * TILE_BYTES), 1.1, counted=True),
    ]  # fmt: skip


def _run(world: World, names: list[str], folder: Path, *, rounds: int) -> tuple[Runs, Runs]:
    """Run each program twice in each round; return the median first and the median second runs."""
    fresh: dict[str, list[Run]] = {name: [] for name in names}
    warm: dict[str, list[Run]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names if turn % 2 else reversed(names):
            if turn and name in ONCE_A_DAY:
                continue
            place = folder / name.replace(" ", "-")
            program = PROGRAMS[name][0]
            fresh[name].append(run(program, place, world, name=name))
            again = run(program, place, world, name=name) if name in TWICE else fresh[name][-1]
            warm[name].append(again)
            shutil.rmtree(place)
    return _medians(fresh), _medians(warm)


def _medians(runs: dict[str, list[Run]]) -> Runs:
    return {
        name: sorted(some, key=lambda one: one.seconds)[len(some) // 2]
        for name, some in runs.items()
    }
