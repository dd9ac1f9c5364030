"""The same server with what users have today."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from days.tile_server.raster import Answer, Source, World, finish, serve


def no_cache(folder: Path, world: World) -> Answer:
    """Make each tile when it is asked for."""
    source = Source(world)
    return Answer(serve(world, source.tile), source.tiles, source.seconds)


def lru(folder: Path, world: World) -> Answer:
    """Keep as many tiles as fit into the same RAM."""
    source = Source(world)
    tile = lru_cache(world.room)(source.tile)
    checksum = serve(world, tile)
    return Answer(checksum, source.tiles, source.seconds, tile.cache_info().hits / world.reads)


def diskcache(folder: Path, world: World) -> Answer:
    """Keep all tiles on the disk, by hand as its manual shows it."""
    import diskcache

    source = Source(world)
    with diskcache.Cache(folder / "store", size_limit=2 * 10**9) as cache:

        def tile(zoom: int, x: int, y: int) -> np.ndarray:
            made = cache.get((zoom, x, y))
            if made is None:
                made = cache[zoom, x, y] = source.tile(zoom, x, y)
            return made

        return Answer(serve(world, tile), source.tiles, source.seconds)


def joblib(folder: Path, world: World) -> Answer:
    """Keep all tiles on the disk, by the decorator."""
    import joblib

    source = Source(world)

    def tile(zoom: int, x: int, y: int, source: Source) -> np.ndarray:
        return source.tile(zoom, x, y)

    kept = joblib.Memory(folder / "store", verbose=0).cache(tile, ignore=["source"])
    checksum = serve(world, lambda zoom, x, y: kept(zoom, x, y, source))
    return Answer(checksum, source.tiles, source.seconds)


def gdal(folder: Path, world: World) -> Answer:
    """Keep blocks of the raster in the same RAM: GDAL's own cache over a tiled GeoTIFF."""
    import rasterio
    from rasterio.windows import Window

    with (
        rasterio.Env(GDAL_CACHEMAX=world.hot + world.warm),
        rasterio.open(geotiff(world)) as dataset,
    ):

        def tile(zoom: int, x: int, y: int) -> np.ndarray:
            side = 256 << zoom
            part = Window(x * side, y * side, side, side)
            return finish(world, dataset.read(1, window=part, out_shape=(256, 256)))

        return Answer(serve(world, tile), 0, 0.0)


def geotiff(world: World) -> Path:
    """Return the path of the raster as a GeoTIFF."""
    return world.path.with_suffix(".tif")


def write_geotiff(world: World) -> None:
    """Write the raster as a GeoTIFF, in tiles."""
    import rasterio

    raster = np.load(world.path, mmap_mode="r")
    with rasterio.open(
        geotiff(world), "w", driver="GTiff", dtype="float32", count=1, tiled=True,
        height=raster.shape[0], width=raster.shape[1], blockxsize=256, blockysize=256,
    ) as dataset:  # fmt: skip
        for row in range(0, raster.shape[0], 256):
            part = raster[row : row + 256]
            dataset.write(part, 1, window=((row, row + 256), (0, raster.shape[1])))
