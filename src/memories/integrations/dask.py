"""What a worker of dask.distributed keeps: results in RAM as they are, and below them the tiers.

dask decides what is in RAM, by its own weights, its targets and its memory monitor: a result there
is the object that the task returned. What has to leave RAM goes to the cold tier of a manager.
Results on a device are not counted as RAM, and stay there.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from collections import defaultdict
from collections.abc import Iterator, Mapping, MutableMapping
from itertools import count
from pathlib import Path
from typing import Any

import dask.config
import msgpack
import numpy as np
import zict
from dask.utils import parse_bytes
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.metrics import context_meter
from distributed.protocol.serialize import merge_and_deserialize, serialize_and_split
from distributed.sizeof import safe_sizeof
from distributed.spill import MaxSpillExceeded, PickleError, SpillBuffer, SpilledSize
from distributed.worker import Worker

from memories.backends.base import LARGE_BYTES
from memories.core.manager import MemoryManager
from memories.engine.heap_trim import TRIM_BYTES, trim_heap
from memories.errors import InvalidOptionError, TierFullError
from memories.foundation.logging import logger
from memories.foundation.units import parse_size

PLUGIN = "memories"
DIRECTORY = "memories"  # In the local directory of the worker, which dask removes.
SMALLEST_DISK = 64 << 20  # Less than this is counted here, and not by the cold tier.
_LOOK_SHARE = 100  # The memory of the process is looked at when so much of its limit has entered.
_MOST_OF_NAME = 200
_MEMORY = "distributed.worker.memory"
_PLAIN = (str, bytes)
_HEADER, _FRAMES = "header", "frames"
# Names of dask for compressors, and those of the tiers.
_COMPRESSION: Mapping[object, str] = {None: "none", False: "none", "auto": "auto"}


class ColdResults(MutableMapping[Any, Any]):
    """The results that have left RAM, in the cold tier of a manager.

    A result that returns to RAM keeps its copy here, until it is deleted or replaced or the disk is
    full: it may leave RAM again without being written again. A large one lies in that copy, mapped,
    while the disk has much room: what is mapped takes its room on the disk until it is not in use.

    Args:
        manager: The manager. It holds nothing else.
        most: The bytes that all of them may take together; None for what the tier holds.
    """

    def __init__(self, manager: WorkerManager, most: int | None) -> None:
        self.manager = manager
        self.weight_by_key: dict[Any, SpilledSize] = {}
        self.total_weight = SpilledSize(0, 0)
        self._most = most
        self._names: dict[Any, str] = {}
        self._copies: dict[Any, SpilledSize] = {}  # Of results in RAM, the oldest first.
        self._mapped: set[Any] = set()  # The results that were mapped when they were last read.
        self._bytes = 0  # On the disk, copies included.
        self._may_map = sys.maxsize if most is None else most // 2  # While not more lies there.
        self._numbers = count()  # Two keys of dask may have one text: 1 and "1".

    def __getitem__(self, key: Any) -> Any:
        weight = self.weight_by_key[key]
        mapped = weight.disk >= LARGE_BYTES and self._bytes <= self._may_map
        with context_meter.meter("disk-read", "seconds"):  # Tasks may write to what they get.
            kept = self.manager.retrieve_writable(self._names[key], mapped=mapped)
        (self._mapped.add if mapped else self._mapped.discard)(key)
        context_meter.digest_metric("disk-read", 1, "count")
        context_meter.digest_metric("disk-read", weight.disk, "bytes")
        if type(kept) is not dict:
            return kept
        header = msgpack.loads(kept[_HEADER], raw=False, use_list=False, strict_map_key=False)
        return merge_and_deserialize(header, [memoryview(frame) for frame in kept[_FRAMES]])

    def __setitem__(self, key: Any, value: Any) -> None:
        weight = self._copies.pop(key, None)
        if weight is None:
            weight = self._write(key, value)
        self.weight_by_key[key] = weight
        self.total_weight += weight

    def __delitem__(self, key: Any) -> None:
        """Take a result out of the mapping; its copy stays until `forget`."""
        weight = self.weight_by_key.pop(key)
        self.total_weight -= weight
        self._copies[key] = weight

    def __contains__(self, key: object) -> bool:
        return key in self.weight_by_key

    def __iter__(self) -> Iterator[Any]:
        return iter(self.weight_by_key)

    def __len__(self) -> int:
        return len(self.weight_by_key)

    def forget(self, key: Any) -> None:
        """Remove the copy of a result that is not in the mapping, if there is one."""
        weight = self._copies.pop(key, None)
        if weight is not None:
            self._mapped.discard(key)
            self._remove(self._names.pop(key), weight.disk)

    def _write(self, key: Any, value: Any) -> SpilledSize:
        """Write a result.

        Raises:
            PickleError: it cannot be taken apart.
            MaxSpillExceeded: there is no room, also without copies.
            StorageError: the disk refused it.
        """
        try:
            kept = _taken_apart(value)
        except Exception as error:
            raise PickleError(key) from error
        name = f"{str(key)[:_MOST_OF_NAME]}#{next(self._numbers)}".replace("\0", " ")
        name = name.encode("utf-8", "replace").decode()
        while True:
            try:
                with context_meter.meter("disk-write", "seconds"):
                    self.manager.store(name, kept, tier="cold")
                stored = self.manager.info(name).stored or 0
                self._bytes += stored
                if self._most is None or self._bytes <= self._most:
                    break
                self._remove(name, stored)
            except TierFullError:
                # The limit of the tier is the same, and also counts what is being freed.
                self._may_map = min(self._may_map, self._bytes // 2)
            copy = next((one for one in self._copies if one not in self._mapped), None)
            if copy is None:
                raise MaxSpillExceeded(key)
            self.forget(copy)
        context_meter.digest_metric("disk-write", 1, "count")
        context_meter.digest_metric("disk-write", stored, "bytes")
        self._names[key] = name
        return SpilledSize(safe_sizeof(value), stored)

    def _remove(self, name: str, nbytes: int) -> None:
        self.manager.delete(name)
        self._bytes -= nbytes


class WorkerManager(MemoryManager):
    """A manager whose directory is private, and lies in that of the worker."""

    def __init__(self, directory: Path, disk: str, **options: Any) -> None:
        self._temporary_in = directory
        super().__init__("1 kB", "1 kB", disk, **options)

    def retrieve_writable(self, key: str, *, mapped: bool) -> Any:
        """Return a value that the caller may write to.

        A `mapped` one lies in its file: only the pages that are written to are copied.
        """
        hierarchy = self._hierarchy
        return hierarchy.read(
            key,
            lambda payload, verify: payload.open_copy(hierarchy.trust, verify=verify),
            private=mapped,
        )


class WorkerData(SpillBuffer):
    """The mapping that a worker keeps results in; dask's own is a `SpillBuffer`, too.

    Results in RAM are the objects that tasks returned. When their weights (`sizeof`) exceed the
    target, or the memory of the process the spill threshold, those used longest ago move to cold.
    A result on a device stays there until the device's share is full.

    Attributes:
        manager: The manager of the tiers below RAM.
        hot: The results on a device.

    Args:
        manager: Holds what has left RAM, and nothing else.
        target: The weight from which on results leave RAM; None for that of the worker.
        max_spill: The bytes on the disk; None for what the cold tier holds.
        device_memory: The bytes on a device; None for no limit.
    """

    def __init__(
        self,
        manager: WorkerManager,
        *,
        target: int | None = None,
        max_spill: int | None = None,
        device_memory: int | None = None,
    ) -> None:
        self.manager = manager
        self._cold = ColdResults(manager, max_spill)
        # A result that is still in use somewhere in the worker is not read a second time.
        slow = zict.Cache(self._cold, zict.WeakValueMapping())
        zict.Buffer.__init__(
            self, {}, slow, sys.maxsize if target is None else target, weight=_weight
        )
        self.logged_pickle_errors: set[Any] = set()
        self.cumulative_metrics: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._target_is_known = target is not None
        self._worker: weakref.ref[Any] | None = None
        self._freed = 0  # Bytes that have left RAM since the heap was trimmed.
        self._entered = 0  # Bytes that have entered RAM since its memory was looked at.
        self.hot = zict.LRU(
            sys.maxsize if device_memory is None else device_memory,
            {},
            weight=_weight,
            on_evict=[self.fast_to_slow],
            on_cancel_evict=[self._cancel_evict],
        )

    def __setitem__(self, key: Any, value: Any) -> None:
        if self._worker is None:
            self.find_worker()
        if is_on_device(value):
            self.discard(key)
            self._set_hot(key, value)
            return
        self.hot.discard(key)
        self.slow.discard(key)
        self._cold.forget(key)
        before = self._cold.total_weight.memory
        super().__setitem__(key, value)
        self._left_ram(self._cold.total_weight.memory - before)
        self._make_way(self.fast.weights.get(key, 0))

    def __getitem__(self, key: Any) -> Any:
        if key in self.hot:
            try:
                return self.hot[key]
            except KeyError:
                pass  # It has just left the device.
        if key in self.fast:
            return super().__getitem__(key)
        before = self._cold.total_weight.memory
        value = super().__getitem__(key)
        if is_on_device(value):  # It has returned from the disk.
            self.fast.discard(key)
            self.slow.discard(key)
            self._set_hot(key, value)
        self._left_ram(self._cold.total_weight.memory - before)
        self._make_way(self.fast.weights.get(key, 0))
        return value

    def __delitem__(self, key: Any) -> None:
        if key in self.hot:
            del self.hot[key]
            self._cold.forget(key)
            return
        weight = self.fast.weights.get(key, 0)
        super().__delitem__(key)
        self._cold.forget(key)
        self._left_ram(weight)

    def __contains__(self, key: object) -> bool:
        return key in self.hot or super().__contains__(key)

    def __iter__(self) -> Iterator[Any]:
        yield from list(self.hot)
        yield from super().__iter__()

    def __len__(self) -> int:
        return len(self.hot) + int(super().__len__())

    def _cancel_evict(self, key: Any, value: Any) -> None:
        """Drop what was written of a result that was replaced or deleted meanwhile."""
        super()._cancel_evict(key, value)
        self._cold.forget(key)

    def evict(self) -> int:
        """Move the result used longest ago from RAM to cold; return its weight, -1 for none.

        It never raises: where a result cannot be written it stays in RAM, and that is logged.
        """
        weight: int = super().evict()
        self._left_ram(max(weight, 0))
        return weight

    def _set_hot(self, key: Any, value: Any) -> None:
        """Hold a result on its device; those used longest ago make room if they can be written."""
        try:
            with self._capture_metrics():
                self.hot[key] = value
        except (PickleError, MaxSpillExceeded, OSError) as error:
            logger.warning("results stay on the device, beyond its share: %s", error)

    def find_worker(self) -> None:
        """Take the target of the worker that has this mapping, and end with it.

        A worker does not say who it is when it asks for its data.
        """
        for worker in list(Worker._instances):
            if worker.data is self:
                self._worker = weakref.ref(worker)
                worker.plugins[PLUGIN] = EndOfData(self)
                if not self._target_is_known:
                    self.n = target_of(worker)

    def _make_way(self, nbytes: int) -> None:
        """Evict results before dask would pause the worker, now that `nbytes` have entered RAM.

        Its monitor looks five times a second. Results enter faster: a worker would be paused again
        and again until the next look, or be ended by its nanny.
        """
        self._entered += nbytes
        worker = None if self._worker is None else self._worker()
        if worker is None:
            return
        limit, memory = worker.memory_manager.memory_limit, worker.monitor.get_process_memory
        if limit is None or self._entered * _LOOK_SHARE < limit:
            return
        self._entered = 0
        spill = worker.memory_manager.memory_spill_fraction
        pause = worker.memory_manager.memory_pause_fraction
        if spill and pause and memory() > pause * limit:
            while self.fast and memory() > spill * limit and self.evict() >= 0:
                pass

    def _left_ram(self, nbytes: int) -> None:
        """Give freed heap back to the system: dask looks at the memory of the process."""
        self._freed += nbytes
        if self._freed >= TRIM_BYTES:
            self._freed = 0
            trim_heap()

    def close(self) -> None:
        """Close the manager; results are not wanted any more. Idempotent."""
        self.manager.cleanup(flush=False)

    def __del__(self) -> None:
        """Leave the end to the manager, which may be ended within any call."""


class EndOfData(WorkerPlugin):
    """Closes the data of a worker when the worker is closed."""

    name = PLUGIN

    def __init__(self, data: WorkerData) -> None:
        self._data = data

    async def teardown(self, worker: Any) -> None:
        """Close the data; dask removes their directory afterwards."""
        del worker
        await asyncio.to_thread(self._data.close)


def worker_data(
    worker_local_directory: str,
    *,
    target: int | str | None = None,
    disk: float | str | None = None,
    device_memory: float | str | None = None,
    **options: Any,
) -> WorkerData:
    """Return what a worker keeps its results in: `Worker(data=worker_data)`.

    With options: `LocalCluster(data=(worker_data, {"disk": "100 GB"}))`. Each worker has a store of
    its own in its local directory, which ends with it.

    Args:
        worker_local_directory: The local directory of the worker; dask gives it.
        target: The weight from which on results leave RAM; None for dask's: the share
            `distributed.worker.memory.target` of the worker's `memory_limit`.
        disk: How much may lie on the disk, in GB or as a text; None for dask's
            `distributed.worker.memory.max-spill`, or what is free.
        device_memory: How much may lie on a device, in GB or as a text; None for no limit.
        options: Further options of `MemoryManager`, such as `compression` or those of glacier.

    Raises:
        InvalidOptionError: an option is invalid.
        StorageError: the directory cannot be used.
    """
    if disk is None:
        spill = dask.config.get(f"{_MEMORY}.max-spill", False)
        most = None if spill is False else parse_bytes(spill)
    else:
        most = parse_size(disk, name="disk")
    weight = None if target is None else parse_size(target, name="target")
    on_device = None if device_memory is None else parse_size(device_memory, name="device_memory")
    options.setdefault("compression", {"cold": _compression()})
    manager = WorkerManager(
        Path(worker_local_directory) / DIRECTORY,
        "auto" if most is None else f"{max(most, SMALLEST_DISK)} B",
        migration=False,
        prefetch="off",
        **options,
    )
    data = WorkerData(manager, target=weight, max_spill=most, device_memory=on_device)
    try:
        asyncio.get_running_loop().call_soon(data.find_worker)
    except RuntimeError:
        pass  # A worker that is made outside of its event loop is found at its first result.
    return data


def dask_setup(worker: Any) -> None:
    """Give a worker its data: `distributed.worker.preload: [memories.dask]` in the configuration.

    Options are those of `worker_data`, under `memories.worker-data`.

    Raises:
        InvalidOptionError: the worker has results already, or an option is invalid.
    """
    if worker.data:
        raise InvalidOptionError("this worker has results already: load memories.dask at its start")
    options = dask.config.get("memories.worker-data", {})
    options = {name.replace("-", "_"): value for name, value in options.items()}
    data = worker_data(worker.local_directory, **options)
    worker.memory_manager.data = worker.state.data = data
    data.find_worker()


def target_of(worker: Any) -> int:
    """Return the weight from which on results leave the RAM of a worker, by dask's settings."""
    memory = worker.memory_manager
    if memory.memory_limit is None or not memory.memory_target_fraction:
        return sys.maxsize
    return int(memory.memory_limit * memory.memory_target_fraction)


def is_on_device(value: object) -> bool:
    """Return whether a value is an array on a device."""
    package = type(value).__module__.partition(".")[0]
    if package == "torch":
        return bool(getattr(value, "is_cuda", False))
    if package == "jaxlib":
        return any(one.platform != "cpu" for one in value.devices())  # type: ignore[attr-defined]
    return package in ("cupy", "cupyx", "cudf", "rmm")


def _taken_apart(value: object) -> Any:
    """Return what is stored of a result: itself, or what dask would send of it to a worker."""
    if type(value) in _PLAIN or (type(value) is np.ndarray and not value.dtype.hasobject):
        return value
    header, frames = serialize_and_split(value, on_error="raise")
    return {
        _HEADER: msgpack.dumps(header, use_bin_type=True),
        _FRAMES: [_as_array(memoryview(frame)) for frame in frames],
    }


def _as_array(frame: memoryview) -> np.ndarray[Any, Any]:
    return np.frombuffer(frame, np.uint8) if frame.nbytes else np.empty(0, np.uint8)


def _weight(key: Any, value: object) -> int:
    del key
    return int(safe_sizeof(value))


def _compression() -> str:
    """Return the compression of what dask spills, by its configuration.

    Raises:
        InvalidOptionError: the tiers do not have it.
    """
    name = dask.config.get(f"{_MEMORY}.spill-compression", "auto")
    return _COMPRESSION.get(name, str(name))
