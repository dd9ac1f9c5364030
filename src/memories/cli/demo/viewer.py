"""The map viewer: it retrieves tiles from the manager, and decodes absent tiles from the file.

It is written as a user's program would be; the manager moves the tiles between the tiers. It
records each request, a digest of the answer and the total time, for the baselines.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any

import numpy as np
from xxhash import xxh3_64_intdigest

from memories.cli.demo.raster import Raster, Tile
from memories.cli.demo.workload import Request, ViewFrame

if TYPE_CHECKING:
    from memories import MemoryManager


class Viewer:
    """One session of the viewer."""

    def __init__(self, manager: MemoryManager, raster: Raster) -> None:
        self._manager = manager
        self._raster = raster
        self.requests: list[Request] = []
        self.digests = array("Q")
        self.seconds = 0.0
        self.storing_seconds = 0.0

    def play(
        self, frames: Iterable[ViewFrame], frame_seconds: float, show: Callable[[ViewFrame], None]
    ) -> None:
        """Draw the frames in order, at intervals of at least `frame_seconds`."""
        for frame in frames:
            started = perf_counter()
            for request in frame.requests:
                self._record(request, *timed(self._answer, request))
            show(frame)
            sleep(max(0.0, frame_seconds - (perf_counter() - started)))

    def _answer(self, request: Request) -> Any:
        tile = request if isinstance(request, Tile) else request.tile
        try:
            if isinstance(request, Tile):
                return self._manager.retrieve(tile.key)
            return self._manager.retrieve(tile.key, region=np.s_[request.y, request.x, :])
        except KeyError:
            started = perf_counter()
            data = self._raster.read(tile)
            self._manager.store(tile.key, data)
            self.storing_seconds += perf_counter() - started
            return data if isinstance(request, Tile) else data[request.y, request.x, :]

    def _record(self, request: Request, value: Any, seconds: float) -> None:
        self.requests.append(request)
        self.digests.append(digest(value))
        self.seconds += seconds


def timed(answer: Callable[[Request], Any], request: Request) -> tuple[Any, float]:
    """Return the result of `answer(request)` and its time in seconds."""
    started = perf_counter()
    value = answer(request)
    return value, perf_counter() - started


def digest(value: Any) -> int:
    """Return a hash of the bytes of `value`."""
    return xxh3_64_intdigest(np.ascontiguousarray(value).data.cast("B"))
