"""Datasets of xarray over the tiers: opened through a cache, and an accessor for what is kept."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

from memories.backends.bucket.options import client_options, split_options
from memories.core.manager import MemoryManager
from memories.errors import InvalidOptionError
from memories.foundation.optional_imports import require
from memories.integrations.byte_values import folder
from memories.integrations.managers import open_for_urls
from memories.model.tiers import StoreTier

require("xarray", extra="xarray")
require("zarr.abc.store", extra="xarray")

import xarray as xr  # noqa: E402
import zarr  # noqa: E402
from xarray.backends import ZarrStore  # noqa: E402
from zarr.abc.store import Store  # noqa: E402
from zarr.storage import FsspecStore, LocalStore, ObjectStore  # noqa: E402

from memories.integrations.zarr import CachedStore, MemoriesStore, cache_decoded  # noqa: E402

PIECE_BYTES = 64_000_000  # What `prefetch` reads at once.
_STORE = "memories_store"  # In the encoding of a dataset: the store it was opened from.


def open(
    source: str | os.PathLike[str] | Store,
    manager: MemoryManager | None = None,
    *,
    group: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    decoded: bool = True,
    cache: Mapping[str, Any] | None = None,
    zarr_format: int | None = None,
    consolidated: bool | None = None,
    **options: Any,
) -> xr.Dataset:
    """Open a cube of zarr through a cache in the tiers, for reading.

    It is `xarray.open_zarr` over a `CachedStore`, or over a `MemoriesStore` that is given. With
    `decoded`, chunks that were read stay in warm as arrays: they are not decompressed again.

    Args:
        source: A URL (`"s3://bucket/cube.zarr"`), a path, or a store of zarr.
        manager: The manager; None takes that of the store, or opens a private one that all datasets
            of this process share, with 512 MB of RAM and 10 GB of disk.
        group: The path of the group in the store.
        storage_options: Credentials, endpoint and so on of the URL.
        decoded: Keep decoded chunks.
        cache: Options of the `CachedStore`: `prefix`, `max_age`, `tier` and so on.
        zarr_format: 2 or 3; None finds out.
        consolidated: As in `xarray.open_zarr`.
        options: Those of `xarray.open_dataset`: `chunks={}` for dask, `decode_times` and so on.

    Raises:
        FileNotFoundError: there is no cube.
        MissingPackageError: a package that the URL needs is not installed.
    """
    store = source if isinstance(source, Store) else store_of(source, storage_options)
    if not isinstance(store, MemoriesStore | CachedStore):
        if manager is None:
            manager = open_for_urls(None, "512 MB", "10 GB")
        store = CachedStore(store, manager, read_only=True, **(cache or {}))
    elif cache:
        raise InvalidOptionError("cache= is for a source that is not a store of this package")
    root = zarr.open_group(
        store, mode="r", path=group, zarr_format=zarr_format, use_consolidated=consolidated
    )
    if decoded:
        root = cache_decoded(root, manager, max_age=(cache or {}).get("max_age", 300.0))
    masks = root.metadata.zarr_format == 2  # As `xarray.open_zarr` does.
    backend = ZarrStore(root, mode="r", use_zarr_fill_value_as_mask=masks)
    dataset = xr.open_dataset(backend, engine="store", **options)
    dataset.encoding["source"] = str(source)
    dataset.encoding[_STORE] = (store, group or "")
    return dataset


def store_of(source: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> Any:
    """Return a store of zarr for a URL or a path: of obstore if it is installed, or of fsspec.

    With obstore, the options may have the names that obstore uses, and those of fsspec.
    """
    url = os.fspath(source)
    protocol, _, rest = url.partition("://")
    if not rest:
        return LocalStore(Path(url), read_only=True)
    if protocol == "file":
        return LocalStore(Path(rest), read_only=True)
    try:
        obstore = require("obstore.store", extra="glacier")
    except ImportError:
        require("fsspec", extra="fsspec")
        return FsspecStore.from_url(url, storage_options=dict(options or {}), read_only=True)
    config, client, provider = split_options(protocol, options or {})
    extra = {"credential_provider": provider} if provider else {}
    bucket = obstore.from_url(
        url, config=config or None, client_options=client_options(client), **extra
    )
    return ObjectStore(bucket, read_only=True)


class Accessor:
    """What the tiers hold of a dataset that `memories.xarray.open` has opened: `dataset.memories`.

    Args:
        dataset: The dataset.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    @property
    def store(self) -> Any:
        """The `CachedStore` or `MemoriesStore` that the dataset was opened from.

        Raises:
            InvalidOptionError: it was opened otherwise.
        """
        return self._opened()[0]

    def _opened(self) -> tuple[Any, str]:
        found = self._dataset.encoding.get(_STORE)
        if found is None:
            raise InvalidOptionError(
                "this dataset does not come from memories.xarray.open, or lost its encoding on "
                "the way: open it so, or persist() it first"
            )
        store, group = found
        return store, group

    def tier(self) -> dict[str, dict[str, int]]:
        """Return, by variable, how many of its chunks are kept in each tier."""
        store, group = self._opened()
        below = "" if isinstance(store, MemoriesStore) else "whole/"
        found: dict[str, dict[str, int]] = {}
        for name in self._dataset.variables:
            start = f"{store.prefix}{below}{folder(group)}{name}/"
            tiers = found[str(name)] = {}
            for key in store.manager.scan(start):
                if not key.rpartition("/")[2].startswith((".z", "zarr.json")):
                    tier = str(store.manager.get_tier(key))
                    tiers[tier] = tiers.get(tier, 0) + 1
        return found

    def prefetch(self, indexers: Mapping[str, Any] | None = None, **further: Any) -> int:
        """Read a part of the dataset into the tiers, and return how many bytes it has decoded.

        At most 64 MB of it are in RAM at a time besides what the tiers hold.

        Args:
            indexers: What to read, as for `isel`; None is everything.
            further: The same by name.
        """
        part = self._dataset.isel({**(indexers or {}), **further})
        total = 0
        for variable in part.variables.values():
            for piece in _pieces(variable):
                total += piece.copy(deep=False).load().nbytes
        return total

    def persist(
        self,
        key: str,
        manager: MemoryManager | None = None,
        *,
        tier: StoreTier = "auto",
        **options: Any,
    ) -> xr.Dataset:
        """Store the dataset as a cube in the tiers, and return it opened from there.

        Lazily loaded variables and those of dask are computed chunk by chunk, where dask is
        installed: the whole never needs to be in RAM.

        Args:
            key: What the keys of the cube begin with.
            manager: The manager; None is that of the dataset's store.
            tier: The tier that a chunk enters first.
            options: Those of `to_zarr`: `encoding`, `mode="w"` to replace what is there.
        """
        if manager is None:
            manager = self.store.manager
        store = MemoriesStore(manager, key, tier=tier)
        dataset = self._dataset
        if _has_dask() and not dataset.chunks:
            dataset = dataset.chunk({})
        dataset = dataset.drop_encoding()
        dataset.to_zarr(store, **{"mode": "w-", "consolidated": False, **options})
        return open(store, manager)


def _pieces(variable: xr.Variable) -> Iterator[xr.Variable]:
    """Yield parts of a variable of at most `PIECE_BYTES`, along its first axis."""
    if variable.ndim == 0 or variable.nbytes <= PIECE_BYTES:
        yield variable
        return
    row = max(prod(variable.shape[1:]) * variable.dtype.itemsize, 1)
    step = max(PIECE_BYTES // row, 1)
    for start in range(0, variable.shape[0], step):
        yield variable[start : start + step]


def _has_dask() -> bool:
    from importlib.util import find_spec

    return find_spec("dask") is not None


xr.register_dataset_accessor("memories")(Accessor)
