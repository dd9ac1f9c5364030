"""The raster of the demo: monthly Linke turbidity of the whole Earth.

It is a data file inside the package pvlib, which is located but not imported.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from memories.foundation.optional_imports import MissingPackageError, require

TILE = 135  # Pixels; divides the raster, and is the height of the file's own chunks.
DATASET = "LinkeTurbidity"
INSTALL = "make demo does that, and so does: pip install h5py && pip install --no-deps pvlib"


class Tile(NamedTuple):
    """A square of the raster, with all twelve months."""

    row: int
    column: int

    @property
    def key(self) -> str:
        """Return the key under which the tile is stored."""
        return f"tile/{self.row:02}/{self.column:02}"


def find_raster() -> Path:
    """Return the path of the data file.

    Raises:
        MissingPackageError: pvlib is not installed.
    """
    found = find_spec("pvlib")
    path = Path(found.origin or "").parent / "data" / "LinkeTurbidities.h5" if found else None
    if path is None or not path.exists():
        raise MissingPackageError(f"the demo needs the raster inside the package pvlib; {INSTALL}")
    return path


class Raster:
    """The open data file; every read decodes from the file."""

    def __init__(self, path: Path) -> None:
        try:
            h5py = require("h5py", extra="demo")
        except MissingPackageError as error:
            raise MissingPackageError(f"the demo needs h5py; {INSTALL}") from error
        self._file = h5py.File(path, "r")
        self._data = self._file[DATASET]
        self.shape: tuple[int, int, int] = self._data.shape
        self.rows, self.columns = self.shape[0] // TILE, self.shape[1] // TILE
        self.nbytes: int = self._data.dtype.itemsize * self._data.size

    def read(self, tile: Tile) -> Any:
        """Return the tile as an array of TILE x TILE x 12."""
        top, left = tile.row * TILE, tile.column * TILE
        return self._data[top : top + TILE, left : left + TILE, :]

    def read_pixel(self, tile: Tile, y: int, x: int) -> Any:
        """Return the twelve months of one pixel of a tile."""
        return self._data[tile.row * TILE + y, tile.column * TILE + x, :]

    def __enter__(self) -> Raster:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()
