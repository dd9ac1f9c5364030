"""A tile server whose tiles lie on an S3 server 30 ms away: four tiers beside a chain of LRUs.

Nothing is simulated: the server is `weed mini` of the tests, behind a proxy that waits before each
request, and both programs wait for the same visitors, who pan, zoom and jump over a map. The chain
keeps arrays in a dict and files in a folder, of the same bytes, each ordered by the latest read.

    python benchmarks/tiles.py [--reads 4000] [--rounds 2] [--delay 0.03]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from _race import machine
from days.tile_server.raster import TileKey, World, walk
from tests.support.buckets import seaweed
from tests.support.buckets.proxy import Fault, MisbehavingProxy, in_front_of

from memories import MemoryManager

SIDE = 128  # Pixels of a tile to a side, each of four bytes.
TILE_BYTES = 4 * SIDE * SIDE
SHARES = {"hot": 0.03, "warm": 0.07, "cold": 0.2}  # Of the bytes of all tiles that are asked for.
TIERS = ("hot", "warm", "cold", "glacier")


class Served(NamedTuple):
    """What a program answered, and what the visitors waited for."""

    waits: list[float]
    answered: Counter[str]  # Reads by tier.
    requests: int


def tile(key: TileKey) -> np.ndarray:
    """Return the tile of a map of noise, which no codec makes smaller."""
    seed = hash((key.zoom, key.x, key.y)) & 0xFFFFFFFF
    return np.random.default_rng(seed).random((SIDE, SIDE), np.float32)


def name_of(key: TileKey) -> str:
    return f"{key.zoom}/{key.x}/{key.y}"


def visit(world: World, read: Callable[[TileKey], np.ndarray]) -> list[float]:
    """Answer all visitors, compare what they get, and return what each read took."""
    waits = []
    for key in walk(world):
        started = time.perf_counter()
        found = read(key)
        waits.append(time.perf_counter() - started)
        assert np.array_equal(tile(key), found), key
    return waits


def ours(
    world: World,
    sizes: dict[str, int],
    server: seaweed.SeaweedServer,
    proxy: MisbehavingProxy,
    prefetch: str,
) -> Served:
    """Serve by a manager, as it is by default but for the sizes."""
    with (
        tempfile.TemporaryDirectory() as folder,
        MemoryManager(
            *(f"{size} B" for size in sizes.values()),
            True,
            storage_path=folder,
            glacier_url=f"s3://{seaweed.BUCKET}/{Path(folder).name}",
            storage_options=server.storage_options(proxy.endpoint),
            prefetch=prefetch,  # type: ignore[arg-type]
        ) as manager,
    ):
        for key in dict.fromkeys(walk(world)):
            manager.store(name_of(key), tile(key), "glacier")
        before, asked = hits_of(manager), len(proxy.requests)
        with late(proxy):
            waits = visit(world, lambda key: manager.retrieve(name_of(key)))
        answered = hits_of(manager)
        answered.subtract(before)
        return Served(waits, answered, len(proxy.requests) - asked)


def hits_of(manager: MemoryManager) -> Counter[str]:
    tiers = manager.stats().tiers
    return Counter({name: tiers[name].hits for name in TIERS})  # type: ignore[index]


def chain(
    world: World, sizes: dict[str, int], server: seaweed.SeaweedServer, proxy: MisbehavingProxy
) -> Served:
    """Serve by a dict and a folder of files, each of which the value read longest ago leaves."""
    from obstore.store import from_url

    store = from_url(
        f"s3://{seaweed.BUCKET}/chain",
        config={"endpoint": proxy.endpoint, "region": "us-east-1", "skip_signature": True},  # type: ignore[arg-type]
        client_options={"allow_http": True},
    )
    for key in dict.fromkeys(walk(world)):
        store.put(name_of(key), tile(key).tobytes())
    held: OrderedDict[TileKey, np.ndarray] = OrderedDict()
    room, below = (sizes["hot"] + sizes["warm"]) // TILE_BYTES, sizes["cold"] // TILE_BYTES
    on_disk: OrderedDict[TileKey, Path] = OrderedDict()
    answered: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:

        def read(key: TileKey) -> np.ndarray:
            found = held.pop(key, None)
            if found is not None:
                answered["warm"] += 1
            elif key in on_disk:
                answered["cold"] += 1
                path = on_disk.pop(key)
                found = np.load(path)
                path.unlink()
            else:
                answered["glacier"] += 1
                body = store.get(name_of(key)).bytes()
                found = np.frombuffer(body, np.float32).reshape(SIDE, SIDE)
            held[key] = found
            if len(held) > room:
                victim, array = held.popitem(last=False)
                on_disk[victim] = path = Path(folder, name_of(victim).replace("/", "-") + ".npy")
                np.save(path, array)
            if len(on_disk) > below:
                on_disk.popitem(last=False)[1].unlink()
            return found

        asked = len(proxy.requests)
        with late(proxy):
            return Served(visit(world, read), answered, len(proxy.requests) - asked)


class late:
    """While the block lasts, each request waits."""

    delay = 0.0

    def __init__(self, proxy: MisbehavingProxy) -> None:
        self._proxy = proxy

    def __enter__(self) -> None:
        self._proxy.fault = lambda request: Fault(delay_seconds=self.delay)

    def __exit__(self, *exc_info: object) -> None:
        self._proxy.fault = lambda request: None


def show(name: str, served: Served) -> None:
    waits, reads = sorted(served.waits), len(served.waits)
    shares = [served.answered[tier] / reads for tier in TIERS]
    print(
        f"| {name} | {shares[0] + shares[1]:.3f} | {shares[2]:.3f} | {shares[3]:.3f} "
        f"| {served.requests:,} | {sum(waits):.1f} | {1e3 * statistics.fmean(waits):.2f} "
        f"| {1e3 * waits[reads // 2]:.2f} | {1e3 * waits[reads * 99 // 100]:.1f} |",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reads", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--delay", type=float, default=0.03)
    arguments = parser.parse_args()
    if seaweed.missing():
        print(f"tiles: skipped, {seaweed.missing()}")
        return 0
    late.delay = arguments.delay
    world = World(Path(), 48, arguments.reads, 4, 0, 0)
    different = len(set(walk(world)))
    sizes = {name: int(share * different * TILE_BYTES) for name, share in SHARES.items()}
    print(
        f"{world.reads:,} reads of {different:,} tiles of {TILE_BYTES:,} bytes, "
        f"{1e3 * arguments.delay:.0f} ms before each request; hot, warm and cold hold {SHARES} "
        f"of them. {machine()}\n"
    )
    print(
        "| program | in RAM | on the disk | from the bucket | requests | waited (s) | mean (ms) "
        "| median (ms) | p99 (ms) |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    )
    with seaweed.running() as server, in_front_of(server.port) as proxy:
        for turn in range(arguments.rounds):
            programs: dict[str, Callable[[], Served]] = {
                "chain of LRUs": lambda: chain(world, sizes, server, proxy),
                "memories": lambda: ours(world, sizes, server, proxy, "auto"),
                "memories, prefetch off": lambda: ours(world, sizes, server, proxy, "off"),
            }
            for name in list(programs)[:: -1 if turn % 2 else 1]:
                show(name, programs[name]())
    return 0


if __name__ == "__main__":
    sys.exit(main())
