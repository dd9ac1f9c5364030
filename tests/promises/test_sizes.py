"""A value of any size comes through every tier, move, snapshot and node, or is refused at once.

Nothing may depend on a chosen size: the sweep goes in steps of three, with room
for everything, and with hardly more than the value itself needs. `make torture` goes on to 3 GB.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.nodes.fixtures import node as node
from tests.support.nodes.patience import patient_clients  # noqa: F401
from xxhash import xxh3_64_intdigest

from memories import DistributedMemoryManager, MemoryManager, TierFullError
from memories.backends.disk import DiskBackend
from memories.cluster.local import LocalServer
from memories.testing.backends import frame_for, record_for

TIERS = ("hot", "warm", "cold", "glacier")
SLICE = [0, *(3**power for power in range(16))]  # To 14 MB.
ABOVE = 210_000_000  # More than the dead bytes that a store puts up with.
SLOWEST = 10e6  # Bytes a second; what is slower hangs.


@contextmanager
def soon(size: int, what: str) -> Iterator[None]:
    """Fail if the body takes longer than any machine needs for `size` bytes."""
    started = time.monotonic()
    yield
    took = time.monotonic() - started
    assert took < 30 + size / SLOWEST, f"{what} of {size} bytes took {took:.1f} s"


def content(size: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Return bytes that do not compress."""
    block = np.random.default_rng(seed).integers(0, 256, min(size, 1 << 20), np.uint8)
    whole = np.resize(block, size)
    whole[:: 1 << 20] ^= np.arange(len(whole[:: 1 << 20]), dtype=np.uint8)
    return whole


def digest(array: np.ndarray[Any, Any]) -> tuple[int, int]:
    return array.nbytes, xxh3_64_intdigest(np.ascontiguousarray(array))


def roomy(size: int) -> list[int]:
    """Return capacities in which such values have room: one in each RAM, several on the disk."""
    ram = int(1.5 * size) + 50_000_000
    return [ram, ram, 6 * size + 50_000_000]


def tight(size: int) -> list[int]:
    """Return capacities that hold one such value, and what a disk needs besides."""
    return [size + 4_000, size + 4_000, int(1.1 * size) + 200_000]


class Sweep:
    """One size, through everything that a manager does with a value."""

    def __init__(self, root: Path, size: int, capacities: list[int], *, spare: bool) -> None:
        self._root, self._size, self._spare = root, size, spare
        self._sizes = [f"{capacity} B" for capacity in capacities]
        # Of the largest, RAM does not hold many: nothing here keeps one, or makes one to compare.
        self._digest = cache(lambda seed: digest(content(size, seed)))

    def run(self) -> None:
        """Go through all of it."""
        for seed in (0, 1):
            self._digest(seed)
        with self._opened() as manager:
            for tier in TIERS:
                if self._store(manager, "k", tier):
                    self._do("delete", manager.delete, "k")
            self._store(manager, "k")
            for tier in ("hot", "warm", "cold", "hot", "glacier", "cold", "glacier", "warm"):
                self._do(f"move to {tier}", manager.migrate, "k", tier)
                self._holds(manager)
            for tier in TIERS:
                seed = 1 if self._store(manager, "k", tier, seed=1) else 0
                self._holds(manager, seed)
                self._store(manager, "k")
                self._holds(manager)
            self._do("flush", manager.flush)
            self._displace(manager)
            self._snapshot(manager)
            self._do("flush", manager.flush)
        with self._opened() as manager:
            self._holds(manager)
            assert [] == manager.check()

    def _opened(self) -> MemoryManager:
        return MemoryManager(
            *self._sizes, True, storage_path=self._root / "store", migration=False, prefetch="off"
        )  # fmt: skip

    def _do(self, what: str, action: Callable[..., object], *arguments: Any) -> bool:
        """Return whether it was done; with little room it may be refused, but at once."""
        with soon(self._size, what):
            try:
                action(*arguments)
            except TierFullError:
                assert not self._spare, what
                return False
        return True

    def _store(
        self,
        manager: MemoryManager,
        key: str,
        tier: str = "auto",
        seed: int = 0,
        *,
        copy: bool = True,
    ) -> bool:
        store = partial(manager.store, copy=copy)
        return self._do(f"store {key} to {tier}", store, key, content(self._size, seed), tier)

    def _holds(self, manager: MemoryManager, seed: int = 0) -> None:
        expected = self._digest(seed)
        with soon(self._size, "retrieve"):
            assert expected == digest(manager.retrieve("k"))

    def _displace(self, manager: MemoryManager) -> None:
        """Others of its size come, and it sinks as far as that takes."""
        self._do("move to hot", manager.migrate, "k", "hot")
        others = ["other 1", "other 2", "other 3"]
        for seed, other in enumerate(others):
            # Handed over, for both tiers in RAM are full besides.
            self._store(manager, other, "hot", seed + 2, copy=False)
            self._holds(manager)
        for other in others:
            manager.pop(other, None)

    def _snapshot(self, manager: MemoryManager) -> None:
        path = self._root / "snapshot.npz"
        with soon(self._size, "create a snapshot"):
            manager.create_snapshot(path)
        manager.clear()
        assert "k" not in manager
        if not self._do("restore a snapshot", manager.restore_snapshot, path):
            self._store(manager, "k")
        self._holds(manager)
        path.unlink()


def through_nodes(node: LocalServer, sizes: list[int]) -> None:
    """Store, read and delete a value of each size on a node."""
    with DistributedMemoryManager(nodes=[node.name], replication_factor=1) as manager:
        for size in sizes:
            value = content(size)
            with soon(size, "store, retrieve and delete on a node"):
                manager.store_distributed("k", value)
                assert digest(value) == digest(manager.retrieve_distributed("k"))
                manager.delete_distributed("k")


@pytest.mark.parametrize("size", SLICE)
def test_a_value_of_any_size_comes_through(tmp_path: Path, size: int) -> None:
    """There is room for several of its kind, so nothing is refused."""
    Sweep(tmp_path, size, roomy(size), spare=True).run()


@pytest.mark.parametrize("size", SLICE[1:])
def test_a_value_that_hardly_fits_comes_through_or_is_refused(tmp_path: Path, size: int) -> None:
    """The thread that makes room and the one that waits for it agree, even with hardly any room."""
    Sweep(tmp_path, size, tight(size), spare=False).run()


def test_a_value_of_any_size_comes_through_a_node(node: LocalServer) -> None:
    """Below a chunk, and of many."""
    through_nodes(node, SLICE)


@pytest.mark.parametrize("way", ["store", "migrate", "displace", "cleanup"])
def test_a_large_value_comes_to_an_empty_cold_tier(tmp_path: Path, way: str) -> None:
    """There is hardly anything alive beside it, so what it may leave dead is less than its size."""
    value = content(ABOVE)
    with (
        MemoryManager(
            "1 B" if way == "displace" else "500 MB", "250 MB", "2 GB",
                storage_path=tmp_path, eviction_policy="lru",
            migration=False, prefetch="off",
        ) as manager,
        soon(ABOVE, way),
    ):  # fmt: skip
        manager.store("x", value, "cold" if way == "store" else "warm")
        if way == "migrate":
            manager.migrate("x", "cold")
        elif way == "displace":
            manager.store("y", value[: ABOVE // 2], "warm")
        assert way == "cleanup" or "cold" == manager.get_tier("x")
        manager.cleanup()
    with MemoryManager("500 MB", "250 MB", "2 GB", storage_path=tmp_path) as manager:
        assert digest(value) == digest(manager.retrieve("x"))


def test_repeated_overwrites_never_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write is larger than all that is alive besides, and kills the one before it."""
    monkeypatch.setattr("memories.backends.disk.space.CHURN_BYTES", 1_000_000)
    with DiskBackend(tmp_path / "s", capacity_bytes=60_000_000) as backend, soon(0, "churn"):
        for version, size in enumerate([3_000_000, 5_000_000, 20, 9_000_000, 4, 15_000_000] * 3):
            backend.write(record_for("k", version + 1), frame_for(bytes(size)))
            backend.write(record_for("small", version + 1), frame_for(bytes(700)))
        assert [] == backend.check()
