"""The raster, the tiles that are made of it, and the visitors who ask for them."""

from __future__ import annotations

import random
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

SIDE = 256  # Pixels of a tile to a side.
TILE_BYTES = 4 * SIDE * SIDE
COLOURS = np.linspace((20, 90, 30), (255, 250, 240), 256).astype(np.float32)  # By height.


class TileKey(NamedTuple):
    """A tile: at zoom 0 a pixel of it is one of the raster, at zoom 1 every second one."""

    zoom: int
    x: int
    y: int


class Answer(NamedTuple):
    """What a program answered: a checksum of all tiles in order, and where they came from.

    Attributes:
        made: How many tiles were made of the raster, and the seconds that this took.
        from_ram: The share of the reads that a cache in RAM answered.
    """

    checksum: int
    made: int
    seconds: float
    from_ram: float = 0.0


@dataclass(frozen=True)
class World:
    """A raster in a file, how its tiles are made, how it is visited, and the RAM of a cache.

    Attributes:
        drawn: Whether a tile is a picture, coloured and lit; else it is a part of the raster.
        latency: Seconds that the source of a tile waits, as one in a network does.
    """

    path: Path
    tiles: int  # To a side.
    reads: int
    zooms: int
    hot: int
    warm: int
    drawn: bool = False
    latency: float = 0.0

    @property
    def room(self) -> int:
        """Return how many tiles fit into the RAM of both tiers."""
        return (self.hot + self.warm) // TILE_BYTES


class Source:
    """Makes tiles of the raster, which lies in a file."""

    def __init__(self, world: World) -> None:
        self.raster = np.load(world.path, mmap_mode="r")
        self.world = world
        self.tiles = 0
        self.seconds = 0.0

    def tile(self, zoom: int, x: int, y: int) -> np.ndarray:
        """Return a new tile."""
        started = time.perf_counter()
        if self.world.latency:
            time.sleep(self.world.latency)
        tile = finish(self.world, self.raster[window(zoom, x, y)])
        self.tiles += 1
        self.seconds += time.perf_counter() - started
        return tile


def write_raster(world: World) -> None:
    """Write heights as a model of terrain has them: smooth, with some noise, in steps of 1 cm."""
    side = world.tiles * SIDE
    file = np.lib.format.open_memmap(world.path, "w+", np.float32, (side, side))
    noise = np.random.default_rng(7).normal(0, 4, (SIDE, side)).astype(np.float32)
    across = np.linspace(0, 40, side, dtype=np.float32)
    for row in range(0, side, SIDE):
        down = across[row : row + SIDE, None]
        heights = 800 * np.sin(down) * np.cos(across) + 300 * np.sin(3 * across + down)
        file[row : row + SIDE] = np.round(heights + np.roll(noise, row, 1), 2)
    file.flush()


def window(zoom: int, x: int, y: int) -> tuple[slice, slice]:
    """Return the pixels of the raster that a tile shows: the middle one of each square."""
    step = 1 << zoom
    rows, columns = (
        slice(at * SIDE * step + step // 2, (at + 1) * SIDE * step, step) for at in (y, x)
    )
    return rows, columns


def finish(world: World, heights: np.ndarray) -> np.ndarray:
    """Return a tile of these heights, in memory of its own."""
    if not world.drawn:
        return np.array(heights)
    down, across = np.gradient(heights)
    light = (1.5 + (across - down) / np.sqrt(1 + across**2 + down**2)) / 3
    step = np.clip(heights / 10 + 128, 0, 255).astype(np.uint8)
    picture = np.full((*heights.shape, 4), 255, np.uint8)
    picture[..., :3] = COLOURS[step] * light[..., None]
    return picture


def walk(world: World) -> Iterator[TileKey]:
    """Yield the tiles that are asked for: a window of 3 x 3 of them pans, zooms and jumps."""
    chance = random.Random(3)
    places = [(chance.randrange(world.tiles), chance.randrange(world.tiles)) for _ in range(40)]
    zoom, x, y = 0, world.tiles // 2, world.tiles // 2
    left = world.reads
    while True:
        side = world.tiles >> zoom
        x, y = min(max(x, 1), side - 2), min(max(y, 1), side - 2)
        for around in range(9):
            yield TileKey(zoom, x + around % 3 - 1, y + around // 3 - 1)
            left -= 1
            if not left:
                return
        step = chance.random()
        if step < 0.05:
            zoom, (x, y) = 0, places[min(int(chance.expovariate(0.1)), len(places) - 1)]
        elif step < 0.12 and zoom:
            zoom, x, y = zoom - 1, 2 * x, 2 * y
        elif step < 0.2 and zoom + 1 < world.zooms:
            zoom, x, y = zoom + 1, x // 2, y // 2
        else:
            x, y = x + chance.choice((-1, 0, 1)), y + chance.choice((-1, 0, 1))


def serve(world: World, tile: Callable[[int, int, int], np.ndarray]) -> int:
    """Answer all visitors, and return a checksum of what they got."""
    total = 0
    for key in walk(world):
        total = zlib.crc32(tile(*key), total)
    return total


def lru_hits(keys: Sequence[TileKey], room: int) -> int:
    """Return how many reads LRU answers with room for so many tiles."""
    held: OrderedDict[TileKey, None] = OrderedDict()
    hits = 0
    for key in keys:
        hits += key in held
        held[key] = None
        held.move_to_end(key)
        if len(held) > room:
            held.popitem(last=False)
    return hits


def best_hits(keys: Sequence[TileKey], room: int) -> int:
    """Return how many reads the best policy answers: it knows what will be asked for (Belady)."""
    coming: dict[TileKey, list[int]] = {}
    for at in reversed(range(len(keys))):
        coming.setdefault(keys[at], []).append(at)
    held: dict[TileKey, int] = {}  # When each tile is asked for next.
    hits = 0
    for key in keys:
        hits += key in held
        coming[key].pop()
        held[key] = coming[key][-1] if coming[key] else len(keys)
        if len(held) > room:
            del held[max(held, key=held.__getitem__)]
    return hits
