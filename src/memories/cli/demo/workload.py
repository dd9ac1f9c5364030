"""The workload of the demo: a sequence of frames, the same for the same seed.

First the view passes once over the whole Earth, zoomed out. Then it explores some regions: it pans
around, reads the twelve months of single pixels, and goes to the next region; at last it returns to
the first.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from memories.cli.demo.raster import TILE, Tile

WIDE = (8, 6)  # Rows and columns of tiles in view, zoomed out.
WIDE_STEP = 1
CLOSE = (4, 6)
PANS = 12
FRAMES_PER_PAN = 2
CLICKS = 8


class Click(NamedTuple):
    """A request for the time series of one pixel of a tile."""

    tile: Tile
    y: int
    x: int


Request = Tile | Click


class ViewFrame(NamedTuple):
    """The requests of one refresh of the screen."""

    scene: str
    requests: Sequence[Request]


class Corner(NamedTuple):
    """The tile in the upper left corner of the view."""

    row: int
    column: int


def script(rows: int, columns: int, *, regions: int, seed: int) -> Iterator[ViewFrame]:
    """Yield the frames of a session over a raster of so many tiles."""
    random_ = random.Random(seed)
    yield from _around_the_world(rows, columns)
    corners = [_random_corner(rows, columns, random_) for _ in range(regions)]
    for number, corner in enumerate([*corners, corners[0]]):
        scene = f"region {number + 1}" if number < regions else "region 1 again"
        yield from _explore(scene, corner, rows, columns, random_)


def _around_the_world(rows: int, columns: int) -> Iterator[ViewFrame]:
    """Pan east over each band of the Earth, and west over the next."""
    for band, top in enumerate(range(0, rows, WIDE[0])):
        steps = range(0, columns - WIDE[1] + 1, WIDE_STEP)
        for left in steps if band % 2 == 0 else reversed(steps):
            yield ViewFrame("around the world", _view(Corner(top, left), WIDE))


def _explore(
    scene: str, corner: Corner, rows: int, columns: int, random_: random.Random
) -> Iterator[ViewFrame]:
    """Pan in one direction, turning back at the edges, then request single pixels."""
    drift = Corner(random_.choice([-1, 1]), random_.choice([-1, 1]))
    for pan in range(PANS):
        if pan:
            corner, drift = _panned(corner, drift, rows, columns, down=random_.random() < 0.5)
        for _ in range(FRAMES_PER_PAN):
            yield ViewFrame(scene, _view(corner, CLOSE))
    view = _view(corner, CLOSE)
    for _ in range(CLICKS):
        click = Click(random_.choice(view), random_.randrange(TILE), random_.randrange(TILE))
        yield ViewFrame(scene, [click])


def _panned(
    corner: Corner, drift: Corner, rows: int, columns: int, *, down: bool
) -> tuple[Corner, Corner]:
    """Return the corner one tile further, down or across, and the drift from there on."""
    if down:
        row, step = _stepped(corner.row, drift.row, rows - CLOSE[0])
        return corner._replace(row=row), drift._replace(row=step)
    column, step = _stepped(corner.column, drift.column, columns - CLOSE[1])
    return corner._replace(column=column), drift._replace(column=step)


def _stepped(at: int, step: int, last: int) -> tuple[int, int]:
    if not 0 <= at + step <= last:
        step = -step
    return at + step, step


def _random_corner(rows: int, columns: int, random_: random.Random) -> Corner:
    return Corner(random_.randint(0, rows - CLOSE[0]), random_.randint(0, columns - CLOSE[1]))


def _view(corner: Corner, size: tuple[int, int]) -> list[Tile]:
    return [
        Tile(corner.row + down, corner.column + right)
        for down in range(size[0])
        for right in range(size[1])
    ]
