"""A raster and a field that compress, in cold and in the formats that arrays are kept in.

Not a benchmark of compressors: each candidate writes files and reads a whole array back, with its
own threads. Faster counts only at an equal or better ratio, so all three figures are shown.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _cold_peers import present

from memories import MemoryManager

Race = Callable[..., dict[str, float]]
_CHUNK = 512  # A side of the chunks that zarr and tensorstore are given.


def raster(side: int) -> np.ndarray[Any, Any]:
    """Return an int16 landscape: steep in the large, smooth in the small, some noise."""
    chance = np.random.default_rng(1)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    frequency[0, 0] = 1.0
    noise = np.fft.rfft2(chance.standard_normal((side, side)))
    land = np.fft.irfft2(noise * frequency**-2.2, s=(side, side))
    land = (land - land.min()) / (land.max() - land.min()) * 3000
    return np.asarray(land + chance.integers(0, 2, (side, side))).astype(np.int16)


def field(side: int) -> np.ndarray[Any, Any]:
    """Return a smooth float32 field, as a model of the weather writes it."""
    x = np.linspace(0, 6 * np.pi, side, dtype=np.float32)
    return np.asarray(280 + 15 * np.sin(x)[:, None] * np.cos(x / 3)[None, :] + x[:, None] / 10)


class Format(ABC):
    """Writes one array to a path and reads it back."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def write(self, array: np.ndarray[Any, Any]) -> None:
        """Write the array, over what lies there."""

    @abstractmethod
    def read(self) -> Any:
        """Return the whole array."""

    def stored(self) -> int:
        """Return the bytes that lie on the disk."""
        if self.path.is_file():
            return self.path.stat().st_size
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def close(self) -> None:
        """Close the files."""
        return


class Cold(Format):
    """A value in cold through the manager; bytes are those of its frame."""

    def __init__(self, path: Path, spec: str) -> None:
        super().__init__(path)
        self._manager = MemoryManager(
            "1 MB",
            "1 MB",
            storage_path=path,
            migration=False,
            prefetch="off",
            compression={"cold": spec},
        )

    def write(self, array: np.ndarray[Any, Any]) -> None:
        self._manager.store("field", array, "cold")

    def read(self) -> Any:
        return self._manager.retrieve("field")

    def stored(self) -> int:
        record = self._manager._hierarchy.catalog.journal.lookup("field")
        assert record is not None
        return record.stored

    def close(self) -> None:
        self._manager.cleanup()


class Zarr(Format):
    """zarr 3 in a directory; None is its own choice of a compressor."""

    def __init__(self, path: Path, options: dict[str, Any] | None = None) -> None:
        super().__init__(path)
        self._options = options

    def write(self, array: np.ndarray[Any, Any]) -> None:
        import zarr
        from zarr.codecs import BloscCodec

        codec: Any = "auto" if self._options is None else BloscCodec(**self._options)
        zarr.create_array(
            store=str(self.path),
            data=array,
            chunks=(_CHUNK, _CHUNK),
            compressors=codec,
            overwrite=True,
        )

    def read(self) -> Any:
        import zarr

        return zarr.open_array(str(self.path), mode="r")[:]


class Blosc2(Format):
    """A Blosc2 array in one file; no options are its own choice."""

    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__(path)
        self._options = options

    def write(self, array: np.ndarray[Any, Any]) -> None:
        import blosc2

        options = {"cparams": self._options} if self._options else {}
        blosc2.asarray(array, urlpath=str(self.path), mode="w", **options)

    def read(self) -> Any:
        import blosc2

        return blosc2.open(str(self.path), mode="r")[:]


class TensorStore(Format):
    """tensorstore's zarr driver, with Blosc."""

    def __init__(self, path: Path, **compressor: Any) -> None:
        super().__init__(path)
        self._compressor = {"id": "blosc", **compressor}
        self._spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": str(path)}}

    def write(self, array: np.ndarray[Any, Any]) -> None:
        import tensorstore

        metadata = {
            "shape": list(array.shape),
            "chunks": [_CHUNK, _CHUNK],
            "dtype": array.dtype.str,
            "compressor": self._compressor,
        }
        spec = {**self._spec, "metadata": metadata}
        opened = tensorstore.open(spec, create=True, delete_existing=True).result()
        opened.write(array).result()

    def read(self) -> Any:
        import tensorstore

        return tensorstore.open(self._spec).result().read().result()


def formats(root: Path) -> dict[str, Format]:
    """Open every candidate that is installed; name those that are missing."""
    found = present("zarr", "blosc2", "tensorstore")
    made: dict[str, Format] = {
        f"memories, {spec}": Cold(root / f"cold-{spec.replace(':', '-')}", spec)
        for spec in ("auto", "zstd:3")
    }
    if "zarr" in found:
        made["zarr, its default"] = Zarr(root / "zarr-default")
        lz4 = {"cname": "lz4", "clevel": 5, "shuffle": "bitshuffle"}
        made["zarr, blosc lz4 bits"] = Zarr(root / "zarr-lz4", lz4)
    if "blosc2" in found:
        import blosc2

        made["blosc2, its default"] = Blosc2(root / "default.b2nd")
        bits = {"codec": blosc2.Codec.LZ4, "clevel": 5, "filters": [blosc2.Filter.BITSHUFFLE]}
        made["blosc2, lz4 bits"] = Blosc2(root / "bits.b2nd", **bits)
    if "tensorstore" in found:
        store = partial(TensorStore, clevel=5, shuffle=2)
        made["tensorstore, lz4 bits"] = store(root / "ts-lz4", cname="lz4")
        made["tensorstore, zstd bits"] = store(root / "ts-zstd", cname="zstd", clevel=3)
    return made


def fields(root: Path, side: int, rounds: int, race: Race) -> None:
    """Race writes and whole reads of both, and say which is faster at an equal or better ratio."""
    for title, array in (("int16 raster", raster(side)), ("smooth float32", field(side))):
        here = root / title.split()[0]
        here.mkdir(parents=True)
        made = formats(here)
        writes = race(
            {name: partial(one.write, array) for name, one in made.items()}, rounds=rounds
        )
        for one in made.values():
            assert np.array_equal(one.read(), array)
        reads = race({name: one.read for name, one in made.items()}, rounds=rounds)
        ratios = {name: array.nbytes / one.stored() for name, one in made.items()}
        print(f"\n{title}, {array.nbytes / 1e6:.0f} MB\n")
        print("| candidate | ratio | write, ms | read, ms |\n|---|---:|---:|---:|")
        for name in made:
            print(
                f"| {name} | {ratios[name]:.2f} | {writes[name] * 1e3:,.1f} "
                f"| {reads[name] * 1e3:,.1f} |"
            )
        print()
        for verb, seconds in (("write", writes), ("read", reads)):
            judge(verb, seconds, ratios)
        for one in made.values():
            one.close()
        shutil.rmtree(here)


def judge(verb: str, seconds: dict[str, float], ratios: dict[str, float]) -> None:
    """Print the bar: no other is faster at our ratio (within 1 %) or a better one.

    The fastest at a lesser ratio is printed beside it, but does not count for the bar.
    """
    for ours in _ours(seconds):
        others = sorted(set(seconds) - set(_ours(seconds)), key=seconds.__getitem__)
        print(f"bar: {verb}, {ours} (ratio {ratios[ours]:.2f})", end=": ")
        rival = next((name for name in others if ratios[name] >= 0.99 * ratios[ours]), None)
        lesser = next((name for name in others if ratios[name] < 0.99 * ratios[ours]), None)
        if rival is None:
            print("no other reaches that ratio", end="")
        else:
            factor = seconds[ours] / seconds[rival]
            verdict = "reached" if factor <= 1 else "MISSED"
            print(f"{factor:.2f} times the time of {rival}, at most 1: {verdict}", end="")
        if lesser is not None:
            factor = seconds[ours] / seconds[lesser]
            print(f"; {factor:.2f} times {lesser} of {ratios[lesser]:.2f}", end="")
        print()


def _ours(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith("memories")]
