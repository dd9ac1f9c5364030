"""rasterio reads windows of a GeoTIFF through blocks in the tiers: `opener=`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

rasterio = pytest.importorskip("rasterio", minversion="1.4", reason="rasterio is not installed")
# Of packages below rasterio.
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
pytest.importorskip("fsspec", reason="fsspec is not installed")

from fsspec.implementations.local import LocalFileSystem  # noqa: E402

from memories import MemoryManager  # noqa: E402
from memories.fsspec import MemoriesFileSystem  # noqa: E402


class CountingFileSystem(LocalFileSystem):
    """Files of the disk whose requests are counted."""

    cachable = False
    asked = 0

    def cat_file(self, *arguments: Any, **options: Any) -> bytes:
        self.asked += 1
        found: bytes = super().cat_file(*arguments, **options)
        return found


@pytest.fixture
def raster(tmp_path: Path) -> tuple[str, np.ndarray[Any, Any]]:
    """A tiled GeoTIFF of two bands with overviews."""
    random = np.random.default_rng(1)
    values = np.cumsum(random.integers(-2, 3, (2, 1024, 1024)), axis=2).astype("int16")
    path = str(tmp_path / "raster.tif")
    with rasterio.open(
        path, "w", driver="GTiff", width=1024, height=1024, count=2, dtype="int16", tiled=True,
        blockxsize=128, blockysize=128, compress="deflate",
        crs="EPSG:4326", transform=rasterio.transform.from_bounds(0, 0, 10, 10, 1024, 1024),
    ) as file:  # fmt: skip
        file.write(values)
        file.build_overviews([2, 4], rasterio.enums.Resampling.nearest)
    return path, values


@pytest.fixture
def manager() -> Iterator[MemoryManager]:
    with MemoryManager("1 kB", "16 MB", "16 MB") as one:
        yield one


def tiles(path: str, values: np.ndarray[Any, Any], fs: Any) -> None:
    """Read random windows and an overview, as a server of tiles does."""
    random = np.random.default_rng(2)
    with rasterio.Env(GDAL_CACHEMAX=2_000_000), rasterio.open(path, opener=fs) as file:
        for _ in range(40):
            row, column = (int(one) for one in random.integers(0, 900, 2))
            window = rasterio.windows.Window(column, row, 100, 100)
            expected = values[:, row : row + 100, column : column + 100]
            assert np.array_equal(expected, file.read(window=window))
        assert (2, 256, 256) == file.read(out_shape=(2, 256, 256)).shape


def test_windows_come_from_blocks(
    raster: tuple[str, np.ndarray[Any, Any]], manager: MemoryManager
) -> None:
    """The values are those of the file, and a second tour over it sends no request."""
    path, values = raster
    behind = CountingFileSystem()
    fs = MemoriesFileSystem(fs=behind, manager=manager, block_size="64 KiB", max_age=None)
    tiles(path, values, fs)
    asked = behind.asked
    assert 0 < asked <= -(-Path(path).stat().st_size // 65536)
    tiles(path, values, fs)
    assert asked == behind.asked
