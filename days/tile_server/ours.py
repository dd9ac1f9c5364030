"""The tile server over a manager: by `cache`, by hand, and by regions of the stored raster."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from days.tile_server.raster import Answer, Source, World, finish, serve, window
from memories import MemoryManager


def cached(folder: Path, world: World) -> Answer:
    """Keep tiles by the decorator."""
    source = Source(world)
    with open_manager(folder, world) as manager:

        @manager.cache(ignore="source")
        def tile(zoom: int, x: int, y: int) -> np.ndarray:
            return source.tile(zoom, x, y)

        checksum = serve(world, tile)
        return Answer(checksum, source.tiles, source.seconds, from_ram(manager, world))


def by_hand(folder: Path, world: World) -> Answer:
    """Keep tiles by `store` and `retrieve`."""
    source = Source(world)
    with open_manager(folder, world) as manager:

        def tile(zoom: int, x: int, y: int) -> np.ndarray:
            key = f"{zoom}/{x}/{y}"
            if key in manager:
                return manager.retrieve(key)
            made = source.tile(zoom, x, y)
            manager.store(key, made)
            return made

        checksum = serve(world, tile)
        return Answer(checksum, source.tiles, source.seconds, from_ram(manager, world))


def by_region(folder: Path, world: World) -> Answer:
    """Keep the raster, and read regions of it."""
    with open_manager(folder, world) as manager:
        if "raster" not in manager:
            manager.store("raster", np.load(world.path, mmap_mode="r"), tier="cold")

        def tile(zoom: int, x: int, y: int) -> np.ndarray:
            return finish(world, manager.retrieve("raster", region=window(zoom, x, y)))

        return Answer(serve(world, tile), 0, 0.0)


def open_manager(folder: Path, world: World) -> MemoryManager:
    """Open the store of the server: as it is by default, but for the sizes."""
    return MemoryManager(f"{world.hot} B", f"{world.warm} B", 2, storage_path=folder / "store")


def from_ram(manager: MemoryManager, world: World) -> float:
    """Return the share of the reads that hot and warm answered."""
    tiers = manager.stats().tiers
    return (tiers["hot"].hits + tiers["warm"].hits) / world.reads
