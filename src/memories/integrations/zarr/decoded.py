"""Decoded chunks in RAM: a pan over data that was read before decompresses nothing.

A chunk is kept under a key that names the version of its encoded form, so that a chunk that was
rewritten is never found. Encoded chunks stay where the store of the array has them.
"""

from __future__ import annotations

import copy
import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any, TypeVar

import numpy as np
from zarr import Array, Group
from zarr.abc.codec import CodecPipeline
from zarr.codecs import ShardingCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.buffer.cpu import NDBuffer as HostBuffer
from zarr.core.chunk_grids import RegularChunkGrid
from zarr.core.common import concurrent_map
from zarr.core.config import config
from zarr.storage import LocalStore, StorePath

from memories.core.manager import MemoryManager
from memories.core.manager_handle import ManagerHandle, handle_of, open_handle, token_of
from memories.core.pickled_reader import is_unopened
from memories.engine.lifecycle_state import LifecycleState
from memories.errors import (
    BusyError,
    ForkedError,
    InvalidOptionTypeError,
    KeyNotFoundError,
    TierFullError,
)
from memories.foundation.units import parse_size
from memories.integrations.read_through import KeepTerms, worker_for
from memories.integrations.zarr.boxes import SelectedBox
from memories.integrations.zarr.cached import CachedStore
from memories.integrations.zarr.sources import source_of
from memories.integrations.zarr.store import MemoriesStore
from memories.model.record import Terms
from memories.model.tiers import TierName

_IN_WARM = Terms(evictable=True, min_tier=TierName.WARM, max_tier=TierName.WARM)
_PRESENT = {"status": "present"}  # What newer releases of zarr ask a pipeline to return.

N = TypeVar("N", Array, Group)


def cache_decoded(
    node: N,
    manager: MemoryManager | None = None,
    *,
    max_age: float | None = 300.0,
    worker_memory: float | str = "128 MB",
) -> N:
    """Return an array or a group of zarr whose decoded chunks are kept in warm.

    Everything else is as it was, and so is each value, bit for bit. Chunks of a `MemoriesStore`, a
    `CachedStore` or a `LocalStore` are found again only while the encoded chunk is the same. Those
    of another store are kept for `max_age` seconds at most: another program may rewrite them.
    What is kept is dropped for room, and when the manager is closed; it is never written anywhere.

    Args:
        node: The array or the group; it is not changed.
        manager: The manager; None is that of the store, a `MemoriesStore` or a `CachedStore`.
        max_age: Seconds; None for a store that never changes.
        worker_memory: The RAM for decoded chunks in another process that gets the array.

    Raises:
        InvalidOptionTypeError: `node` is neither, or there is no manager.
    """
    if not isinstance(node, Array | Group):
        raise InvalidOptionTypeError(
            f"{node!r:.60} must be an array or a group of zarr, not a {type(node).__name__}"
        )
    manager = manager if manager is not None else getattr(node.store, "manager", None)
    if not isinstance(manager, MemoryManager):
        raise InvalidOptionTypeError(
            f"manager={manager!r:.60} must be a MemoryManager; only the stores of this package "
            "have one of their own"
        )
    chunks = DecodedChunks(manager, node.store, max_age, worker_memory)
    return chunks.in_front_of(node)


class DecodedChunks:
    """Keeps and finds the decoded chunks of the arrays of one store.

    Args:
        manager: The manager; one that only reads keeps nothing.
        store: The store.
        max_age: Seconds for which a chunk is found if its store has no versions.
        worker_memory: The RAM that another process takes for the same.
    """

    def __init__(
        self, manager: MemoryManager, store: Any, max_age: float | None, worker_memory: float | str
    ) -> None:
        self._manager = manager
        self._hierarchy = manager._hierarchy
        self._clock = manager._services.clock
        self._store = store
        self._max_age = KeepTerms.checked(max_age, 0.0, "auto").max_age
        self._worker_memory = worker_memory
        parse_size(worker_memory, name="worker_memory")
        self._writes = 0  # A store without versions: what was decoded before a write is not found.
        self._run = uuid.uuid4().hex[:12]
        self._root = os.fspath(store.root) if isinstance(store, LocalStore) else ""
        address = self._address() if self._has_versions else self._run
        self._prefix = f"decoded/{hashlib.sha256(address.encode()).hexdigest()[:16]}/"

    @property
    def fetches(self) -> bool:
        """Whether a chunk has a version only once it was read."""
        return isinstance(self._store, CachedStore)

    @property
    def _has_versions(self) -> bool:
        return isinstance(self._store, MemoriesStore | CachedStore | LocalStore)

    def _address(self) -> str:
        store = self._store
        if isinstance(store, LocalStore):
            return source_of(store).identity
        return f"{token_of(store.manager)}:{type(store).__name__}:{store.prefix}"

    def __reduce__(self) -> tuple[Any, ...]:
        handle = handle_of(self._manager)
        return _reopen, (handle, self._store, self._max_age, self._worker_memory)

    def in_front_of(self, node: N) -> N:
        """Return a copy of an array or a group that reads through these chunks."""
        if isinstance(node, Group):
            return _DecodedGroup(node._async_group, self)
        inner = copy.copy(node.async_array)
        pipeline = inner.codec_pipeline
        if isinstance(pipeline, DecodedPipeline):
            pipeline = pipeline.inner
        object.__setattr__(inner, "codec_pipeline", DecodedPipeline(pipeline, self))
        return DecodedArray(inner)

    def version(self, key: str) -> str | None:
        """Return the version of an encoded chunk; None if it is absent, or not known."""
        store = self._store
        if isinstance(store, LocalStore):
            try:
                found = os.stat(f"{self._root}/{key}")  # noqa: PTH116 - a third of the time of a Path.
            except OSError:
                return None
            return f"{found.st_mtime_ns}.{found.st_size}.{found.st_ino}"
        if isinstance(store, CachedStore):
            return store.kept_version(key)
        if isinstance(store, MemoriesStore):
            try:
                return str(store.manager._hierarchy.lookup(store.prefix + key).version)
            except KeyNotFoundError:
                return None
        age = 0 if not self._max_age else int(self._clock.monotonic() // self._max_age)
        return None if self._max_age == 0 else f"{self._writes}.{age}"

    def find(self, key: str, version: str, grain: str) -> Any:
        """Return a decoded chunk; None if it is not kept."""
        return self._manager.retrieve(f"{self._prefix}{key}@{version}{grain}", None)

    def keep(self, key: str, version: str, grain: str, chunk: Any) -> None:
        """Keep a decoded chunk, which no other code refers to, if there is room."""
        if self._hierarchy.state is not LifecycleState.OPEN:
            return
        name = f"{self._prefix}{key}@{version}{grain}"
        payload = self._manager._services.payload_of(name, chunk, copy=False)
        try:
            self._hierarchy.put(name, payload, tier=TierName.WARM, terms=_IN_WARM)
        except (TierFullError, BusyError, ForkedError):
            return  # There is no room: it is decoded again.

    def note_write(self) -> None:
        """Find nothing any more that was decoded before, in a store without versions."""
        self._writes += 1


def _reopen(
    handle: ManagerHandle, store: Any, max_age: float | None, worker_memory: float | str
) -> DecodedChunks:
    manager = open_handle(handle)
    if is_unopened(manager) or manager._hierarchy.state is LifecycleState.READ_ONLY:
        manager = worker_for(handle.token, int(parse_size(worker_memory, name="worker_memory")))
    return DecodedChunks(manager, store, max_age, worker_memory)


class DecodedArray(Array):
    """An array that puts boxes of decoded chunks together in the thread that reads them."""

    def get_basic_selection(self, selection: Any = Ellipsis, **options: Any) -> Any:
        """Return the elements of a selection of ints and slices."""
        found = None if any(options.values()) else self._read_box(selection)
        return super().get_basic_selection(selection, **options) if found is None else found

    def get_orthogonal_selection(self, selection: Any, **options: Any) -> Any:
        """Return the elements of a selection for each axis."""
        found = None if any(options.values()) else self._read_box(selection)
        return super().get_orthogonal_selection(selection, **options) if found is None else found

    def _read_box(self, selection: Any) -> Any:
        """Return a box whose decoded chunks are all kept; None for any other selection."""
        inner = self._async_array
        metadata, pipeline = inner.metadata, inner.codec_pipeline
        grid = getattr(metadata, "chunk_grid", None)
        if not (isinstance(pipeline, DecodedPipeline) and isinstance(grid, RegularChunkGrid)):
            return None
        box = SelectedBox.of(selection, metadata.shape)
        if box is None or default_buffer_prototype().nd_buffer is not HostBuffer:
            return None
        is_old = metadata.zarr_format == 2
        dtype = (metadata.dtype if is_old else metadata.data_type).to_native_dtype()
        grain = pipeline.grain(grid.chunk_shape)
        if grain is None or not _is_plain(dtype):
            return None
        chunks, path = pipeline.chunks, inner.store_path.path
        versions: dict[tuple[int, ...], tuple[str, str | None]] = {}

        def find(coordinates: tuple[int, ...], start: tuple[int, ...]) -> Any:
            known = versions.get(coordinates)
            if known is None:
                name = metadata.encode_chunk_key(coordinates)
                key = f"{path}/{name}" if path else name
                known = versions[coordinates] = key, chunks.version(key)
            key, version = known
            if version is None:
                return None
            place = _Place(start, grain).name if pipeline.is_sharded else ""
            return chunks.find(key, version, place)

        return box.read(
            grid.chunk_shape,
            grain,
            find,
            dtype=dtype,
            order=inner.order,
        )


class _DecodedGroup(Group):
    """A group whose arrays keep their decoded chunks."""

    def __init__(self, async_group: Any, chunks: DecodedChunks) -> None:
        object.__setattr__(self, "_async_group", async_group)
        object.__setattr__(self, "_chunks", chunks)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._async_group, self._chunks)

    def __getitem__(self, path: str) -> Any:
        return self._chunks.in_front_of(super().__getitem__(path))

    def get(self, path: str, default: Any = None) -> Any:
        """Return the array or the group at `path`, or else `default`."""
        try:
            return self[path]
        except KeyError:
            return default

    def members(self, *arguments: Any, **options: Any) -> Any:
        """Return all arrays and groups below this one, with their paths."""
        found = super().members(*arguments, **options)
        return tuple((path, self._chunks.in_front_of(node)) for path, node in found)

    def arrays(self) -> Iterator[tuple[str, Any]]:
        """Yield the arrays directly in this group, with their names."""
        for name, node in super().arrays():
            yield name, self._chunks.in_front_of(node)

    def array_values(self) -> Iterator[Any]:
        """Yield the arrays directly in this group."""
        for _, node in self.arrays():
            yield node


@dataclass(frozen=True)
class _Cut:
    """The part of a chunk that one read asks for, and where it belongs in the output.

    Attributes:
        getter: Where the encoded chunk is.
        spec: The shape and type of the chunk.
        selection: What is asked for of the chunk.
        output: Where that belongs.
        key: The key of the encoded chunk.
        version: The version of it; None if it is not known.
    """

    getter: Any
    spec: Any
    selection: Any
    output: Any
    key: str
    version: str | None

    def item(self) -> tuple[Any, ...]:
        """Return this as the pipelines of zarr have it."""
        return (self.getter, self.spec, self.selection, self.output, False)


@dataclass(frozen=True)
class DecodedPipeline(CodecPipeline):
    """The pipeline of an array, asked only for chunks whose decoded form is not kept.

    Attributes:
        inner: The pipeline that decodes and encodes.
        chunks: Where decoded chunks are kept.
    """

    inner: Any
    chunks: DecodedChunks = field(repr=False)

    def __iter__(self) -> Iterator[Any]:
        yield from self.inner

    @property
    def is_sharded(self) -> bool:
        """Whether a chunk of the store is a shard, with inner chunks."""
        return isinstance(getattr(self.inner, "array_bytes_codec", None), ShardingCodec)

    def grain(self, chunk: tuple[int, ...]) -> tuple[int, ...] | None:
        """Return the shape of what is kept of a chunk: of all, or of an inner chunk of a shard.

        None for shards inside of which zarr cannot read parts.
        """
        if not self.is_sharded:
            return chunk
        shape: tuple[int, ...] = self.inner.array_bytes_codec.chunk_shape
        return shape if self.inner.supports_partial_decode else None

    def evolve_from_array_spec(self, array_spec: Any) -> DecodedPipeline:
        """Return the pipeline for an array with this specification."""
        return DecodedPipeline(self.inner.evolve_from_array_spec(array_spec), self.chunks)

    @classmethod
    def from_codecs(cls, codecs: Iterable[Any]) -> Any:
        """Return the default pipeline: without a store there is nothing to keep."""
        from zarr.core.codec_pipeline import BatchedCodecPipeline

        return BatchedCodecPipeline.from_codecs(codecs)

    @property
    def supports_partial_decode(self) -> bool:
        """Whether parts of a chunk can be decoded."""
        return bool(self.inner.supports_partial_decode)

    @property
    def supports_partial_encode(self) -> bool:
        """Whether parts of a chunk can be encoded."""
        return bool(self.inner.supports_partial_encode)

    def validate(self, **options: Any) -> None:
        """Raise if a codec does not fit the array."""
        self.inner.validate(**options)

    def compute_encoded_size(self, byte_length: int, array_spec: Any) -> int:
        """Return the size of a chunk once it is encoded."""
        return int(self.inner.compute_encoded_size(byte_length, array_spec))

    async def decode(self, chunk_bytes_and_specs: Iterable[Any]) -> Any:
        """Decode chunks."""
        return await self.inner.decode(chunk_bytes_and_specs)

    async def encode(self, chunk_arrays_and_specs: Iterable[Any]) -> Any:
        """Encode chunks."""
        return await self.inner.encode(chunk_arrays_and_specs)

    async def write(
        self, batch_info: Iterable[Any], value: Any, drop_axes: tuple[int, ...] = ()
    ) -> Any:
        """Write chunks; what was decoded before is not found any more."""
        self.chunks.note_write()
        try:
            return await self.inner.write(batch_info, value, drop_axes)
        finally:
            self.chunks.note_write()

    async def read(
        self, batch_info: Iterable[Any], out: Any, drop_axes: tuple[int, ...] = ()
    ) -> tuple[Any, ...]:
        """Fill `out` with parts of chunks: decoded ones first, then those that must be read."""
        batch = [*batch_info]
        results: list[Any] = [_PRESENT] * len(batch)
        absent: list[tuple[int, _Cut]] = []
        plain: list[int] = []
        keeps = type(out) is HostBuffer
        for number, (getter, spec, selection, output, *_) in enumerate(batch):
            plain_type = _is_plain(spec.dtype.to_native_dtype())
            if not (keeps and isinstance(getter, StorePath) and plain_type):
                plain.append(number)
                continue
            version = self.chunks.version(getter.path)
            cut = _Cut(getter, spec, selection, output, getter.path, version)
            if version is None or not self._fill(cut, out, drop_axes):
                absent.append((number, cut))
        if plain:
            found = await self.inner.read([batch[number] for number in plain], out, drop_axes)
            for number, result in zip(plain, found or (), strict=False):
                results[number] = result
        if absent:
            found = await concurrent_map(
                [(cut, out, drop_axes) for _, cut in absent],
                self._read_one,
                config.get("async.concurrency"),
            )
            for (number, _), result in zip(absent, found, strict=True):
                results[number] = result
        return tuple(results)

    def _fill(self, cut: _Cut, out: Any, drop_axes: tuple[int, ...]) -> bool:
        """Copy the part of a decoded chunk into `out`; return False if it is not kept."""
        assert cut.version is not None
        grid = self._grid(cut)
        if grid is None:
            chunk = self.chunks.find(cut.key, cut.version, "")
            if chunk is None:
                return False
            _assign(out, cut, chunk, cut.selection, drop_axes)
            return True
        found = [(place, self.chunks.find(cut.key, cut.version, place.name)) for place in grid]
        if any(chunk is None for _, chunk in found):
            return False
        whole = np.empty([one.stop - one.start for one in grid.bounds], found[0][1].dtype)
        for place, chunk in found:
            whole[place.within(grid.bounds)] = chunk
        _assign(out, cut, whole, grid.relative, drop_axes)
        return True

    def _grid(self, cut: _Cut) -> _Grid | None:
        """Return the inner chunks of a shard that are touched; None where a chunk is not one."""
        grain = self.grain(cut.spec.shape) if self.is_sharded else None
        return None if grain is None else _Grid.of(cut.selection, cut.spec.shape, grain)

    async def _read_one(self, cut: _Cut, out: Any, drop_axes: tuple[int, ...]) -> Any:
        """Read and decode one chunk, or the touched inner chunks of a shard; keep and use it."""
        spec, grid = cut.spec, self._grid(cut)
        if (
            self.is_sharded and grid is None
        ):  # Its selection is made of lists: zarr knows what to read.
            found = await self.inner.read([cut.item()], out, drop_axes)
            return found[0] if found else _PRESENT
        version = cut.version
        if version is None and grid is None and self.chunks.fetches:
            # Fetched first: a version that was known before the read is never newer than the data.
            await cut.getter.get(spec.prototype)
            version = self.chunks.version(cut.key)
        bounds = tuple(slice(0, size) for size in spec.shape) if grid is None else grid.bounds
        shape = tuple(one.stop - one.start for one in bounds)
        dtype = spec.dtype.to_native_dtype()
        buffer = HostBuffer.create(shape=shape, dtype=dtype, order=spec.order)
        target = tuple(slice(0, size) for size in shape)
        found = await self.inner.read([(cut.getter, spec, bounds, target, grid is None)], buffer)
        whole = buffer.as_numpy_array()
        if grid is None:
            _assign(out, cut, whole, cut.selection, drop_axes)
        else:
            _assign(out, cut, whole, grid.relative, drop_axes)
        result = found[0] if found else _PRESENT
        if version is not None and result == _PRESENT:
            if grid is None:
                self.chunks.keep(cut.key, version, "", whole)
            else:
                for place in grid:
                    part = np.array(whole[place.within(bounds)], order=spec.order)
                    self.chunks.keep(cut.key, version, place.name, part)
        return result


@dataclass(frozen=True)
class _Place:
    """One inner chunk of a shard: where it begins in the shard, and its shape."""

    start: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """Return what distinguishes it from other parts of the shard."""
        return "#" + ".".join(map(str, self.start))

    def within(self, bounds: tuple[slice, ...]) -> tuple[slice, ...]:
        """Return where it is in an array that has only these bounds of the shard."""
        return tuple(
            slice(start - bound.start, start - bound.start + size)
            for start, size, bound in zip(self.start, self.shape, bounds, strict=True)
        )


@dataclass(frozen=True)
class _Grid:
    """The inner chunks of a shard that a selection touches.

    Attributes:
        bounds: The smallest box of inner chunks around the selection.
        relative: The selection, in that box.
        shape: The shape of an inner chunk.
    """

    bounds: tuple[slice, ...]
    relative: tuple[Any, ...]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, selection: Any, shape: tuple[int, ...], inner: tuple[int, ...]) -> _Grid | None:
        """Return the grid under a selection of ints and slices; None for any other."""
        if not isinstance(selection, tuple) or len(selection) != len(shape):
            return None
        bounds, relative = [], []
        for one, size, grain in zip(selection, shape, inner, strict=True):
            if isinstance(one, slice):
                start, stop, step = one.indices(size)
                if step != 1 or stop <= start:
                    return None
            elif isinstance(one, int | np.integer):
                start, stop = int(one), int(one) + 1
            else:
                return None
            low = start // grain * grain
            bounds.append(slice(low, min(-(-stop // grain) * grain, size)))
            relative.append(
                slice(start - low, stop - low) if isinstance(one, slice) else start - low
            )
        return cls(tuple(bounds), tuple(relative), inner)

    def __iter__(self) -> Iterator[_Place]:
        axes = [
            range(bound.start, bound.stop, grain)
            for bound, grain in zip(self.bounds, self.shape, strict=True)
        ]
        for start in product(*axes):
            yield _Place(start, self.shape)


def _is_plain(dtype: np.dtype[Any]) -> bool:
    """Return whether the elements of a chunk are bytes, and not Python objects."""
    return not dtype.hasobject and dtype.kind != "T"


def _assign(out: Any, cut: _Cut, chunk: Any, selection: Any, drop_axes: tuple[int, ...]) -> None:
    """Copy a part of a chunk into the output, as zarr does."""
    part = chunk[selection]
    out[cut.output] = part.squeeze(axis=drop_axes) if drop_axes else part
