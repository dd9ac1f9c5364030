"""Writes the golden frames of the current format version; run it once per version, never again.

    python tests/format/make_golden.py

Files that exist are kept: a golden file that changes is a format that changed.
"""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
import zoneinfo
from pathlib import Path
from typing import Any

import numpy as np

from memories import codecs
from memories.frames import head, writer
from memories.frames.signing import Key

GOLDEN = Path(__file__).parent / "golden"
ON_NODES = Path(__file__).parent / "golden_nodes" / "array.frame"
KEY = Key(bytes(range(32)))


def values() -> dict[str, Any]:
    """Return what the golden frames hold."""
    grid = np.arange(24, dtype="<f4").reshape(4, 6)
    return {
        "array": grid,
        "array-fortran": np.asfortranarray(grid),
        "array-big-endian": grid.astype(">i2"),
        "array-datetime": np.array(["2020-01-01", "NaT"], "M8[us]"),
        "array-structured": np.array([(1, b"x")], [("a", "<u2"), ("b", "S3")]),
        "array-empty": np.zeros((0, 3)),
        "array-objects": np.array(["a", None, 2], object),
        "array-masked": np.ma.MaskedArray([1, 2], mask=[False, True]),
        "bytes": b"golden",
        "text": "gölden",
        "long-text": "golden " * 1000,
        "scalars": [None, True, -1, 2**100, 1.5, 2j, ..., range(3), slice(1, 2), np.int8(-3)],
        "moments": (
            dt.datetime(2020, 2, 29, 12, tzinfo=dt.UTC),
            dt.date(2020, 2, 29),
            dt.timedelta(1),
            uuid.UUID(int=1),
            decimal.Decimal("1.10"),
        ),
        "state": {"layers": [{"w": np.ones((2, 3)), "b": np.zeros(3)}], "step": 7, (1, 2): {3, 4}},
        "spilled": {f"key{i:04d}": np.array([i]) for i in range(700)},
    }


def differences() -> dict[str, Any]:
    """Return arrays that are smaller as differences."""
    rows, columns = np.mgrid[:64, :96]
    slope = (rows * 1000 + columns * columns).astype("<u2")
    return {
        "differences-sum": slope,
        "differences-xor": (1 + np.sqrt(slope)).astype("<f4")[:, 1:],
    }


def numbers() -> dict[str, Any]:
    """Return what the archive stores as numbers of pcodec: plain ones, and those of rows."""
    noise = (np.arange(9000) * 2654435761 % 2**32 >> 25) - 64
    ground = noise.reshape(90, 100).cumsum(0).cumsum(1).astype("<i2")
    return {"numbers-rows": ground, "numbers-plain": (noise[:4000].cumsum() + 50_000) / 100}


def tables() -> dict[str, Any]:
    """Return what needs optional packages to be written, and to be read."""
    import pandas
    import polars
    import pyarrow
    import scipy.sparse
    import xarray

    days = pandas.date_range("2020", periods=3, tz=zoneinfo.ZoneInfo("Europe/Berlin"), name="day")
    writer = pandas.DataFrame(
        {"n": [1.5, None, 2], "s": ["a", None, "c"], "c": pandas.Categorical(list("aba"))},
        index=days,
    )
    return {
        "pandas": writer,
        "pandas-text": writer[["s"]],
        "polars": polars.DataFrame({"n": [1, None], "s": ["a", "b"]}),
        "pyarrow": pyarrow.table({"n": [1, None], "s": ["a", "b"]}),
        "scipy": scipy.sparse.csr_array(([1.0], ([0], [2])), shape=(2, 3)),
        "xarray": xarray.DataArray([[1, 2]], {"x": [5], "y": ["a", "b"]}, name="v"),
    }


def on_nodes() -> Any:
    """Return the value of the frame that has no checksums."""
    return np.arange(300, dtype=np.int16).reshape(20, 15)


def main() -> None:
    """Write what is missing."""
    folder = GOLDEN / str(head.FORMAT)
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in (values() | tables()).items():
        for compression in ("none", "zstd:3", "lz4"):
            write(folder / f"{name}.{compression.partition(':')[0]}.frame", value, compression)
    for name, value in numbers().items():
        write(folder / f"{name}.high.frame", value, "high")
    for name, value in differences().items():
        write(folder / f"{name}.high.frame", value, "high")
    write(folder / "signed.none.frame", complex, "none", SignWith(KEY))
    if not ON_NODES.exists():
        parts = codecs.encode(on_nodes())
        ON_NODES.write_bytes(writer.pack_unsummed(parts, key="golden", version=1).join())


class SignWith:
    """Signs with a key that is no secret."""

    def __init__(self, key: Key) -> None:
        self.key = key

    def sign(self, message: bytes) -> Any:
        """Sign `message`."""
        from memories.frames import signing

        return signing.Signature(self.key.id, signing._mac(self.key, message))


def write(path: Path, value: Any, compression: str, signer: Any = None) -> None:
    """Write one frame unless it is there."""
    if not path.exists():
        parts = codecs.encode(value)
        packed = writer.pack(parts, key="golden", version=1, compression=compression, signer=signer)
        path.write_bytes(packed.join())


if __name__ == "__main__":
    main()
