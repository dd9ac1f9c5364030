"""The least programs that keep our promises: tiles in as much RAM, and a log behind it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from days.floor import Floor
from days.tile_server.raster import TILE_BYTES, Answer, Source, World, serve

# A result is worth its bytes on the disk if it took so many times as long as to write them.
WORTH = 4
DISK_BYTES_PER_SECOND = 1e9


def cached(folder: Path, world: World) -> Answer:
    """Keep what a decorator keeps: what leaves RAM is written if it took long to make."""
    return _serve(folder, world, WORTH * TILE_BYTES / DISK_BYTES_PER_SECOND)


def by_hand(folder: Path, world: World) -> Answer:
    """Keep what was stored by hand: what leaves RAM is written, for nothing is dropped silently."""
    return _serve(folder, world, 0.0)


def _serve(folder: Path, world: World, least_seconds: float) -> Answer:
    source = Source(world)
    floor = Floor(folder / "store", world.hot + world.warm)

    def tile(zoom: int, x: int, y: int) -> Any:
        key = f"{zoom}/{x}/{y}"
        kept = floor.get(key)
        if kept is None:
            before = time.perf_counter()
            kept = source.tile(zoom, x, y)
            kept.flags.writeable = False
            floor.hold(key, kept, write=time.perf_counter() - before > least_seconds)
        elif type(kept) is bytes:
            kept = np.frombuffer(kept, np.uint8 if world.drawn else np.float32)
        return kept

    checksum = serve(world, tile)
    floor.close()
    return Answer(checksum, source.tiles, source.seconds)
