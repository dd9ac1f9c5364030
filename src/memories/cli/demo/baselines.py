"""Baselines: the same requests answered from the file, and from a dict with all tiles in RAM.

The answers are timed as those of the viewer. Each answer of the viewer is compared with that of the
file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, NamedTuple

from memories.cli.demo.raster import Raster, Tile
from memories.cli.demo.viewer import digest, timed
from memories.cli.demo.workload import Request


class Baseline(NamedTuple):
    """The time of the requests, and the number of answers that differed from the viewer's."""

    seconds: float
    preparing_seconds: float
    different: int


def from_file(raster: Raster, requests: Sequence[Request], digests: Sequence[int]) -> Baseline:
    """Decode from the file at every request."""

    def answer(request: Request) -> Any:
        if isinstance(request, Tile):
            return raster.read(request)
        return raster.read_pixel(request.tile, request.y, request.x)

    return _replay(answer, requests, digests, 0.0)


def from_ram(raster: Raster, requests: Sequence[Request], digests: Sequence[int]) -> Baseline:
    """Decode everything into a dict first, and answer from that."""
    started = perf_counter()
    every = [Tile(row, column) for row in range(raster.rows) for column in range(raster.columns)]
    tiles = {tile.key: raster.read(tile) for tile in every}
    preparing_seconds = perf_counter() - started

    def answer(request: Request) -> Any:
        if isinstance(request, Tile):
            return tiles[request.key]
        return tiles[request.tile.key][request.y, request.x, :]

    return _replay(answer, requests, digests, preparing_seconds)


def _replay(
    answer: Callable[[Request], Any],
    requests: Sequence[Request],
    digests: Sequence[int],
    preparing_seconds: float,
) -> Baseline:
    total, different = 0.0, 0
    for request, expected in zip(requests, digests, strict=True):
        value, seconds = timed(answer, request)
        total += seconds
        different += digest(value) != expected
    return Baseline(total, preparing_seconds, different)
