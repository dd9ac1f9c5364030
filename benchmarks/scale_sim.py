"""What a thousand nodes and petabytes would cost: placement, movement, repair and loss, simulated.

Not a benchmark of servers: placement is the very code that the manager runs (`placement.py`),
everything else is arithmetic and a simulation of failures, whose model is printed with its
figures. Each simulated figure stands beside the formula that it should come near to.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter

from memories.cluster.rendezvous import list_length, rank
from memories.foundation.units import format_size

HOUR = 3600.0
DAY = 24 * HOUR
YEAR = 365 * DAY
CHUNK_BYTES = 4 << 20
EVENTS = 300_000  # Failures that one simulation may take.
SEEN = 20  # Losses that it must have seen to say anything.


@dataclass(frozen=True)
class Fleet:
    """What is simulated. The defaults are a careful guess, and each is an option."""

    nodes: int = 1000
    node_bytes: float = 1e12  # What each holds: a petabyte in all, copies included.
    copies: int = 3
    failures_per_node_year: float = 2.0  # Of those that lose its memory: crash, kernel, hardware.
    detect_seconds: float = 10.0
    repair_bytes_per_second: float = 50e9  # Of all nodes that repair, together.

    @property
    def repair_seconds(self) -> float:
        """Return how long it takes until what a node held has all its copies again."""
        return self.detect_seconds + self.node_bytes / self.repair_bytes_per_second

    @property
    def failures_per_second(self) -> float:
        """Return how often any node fails."""
        return self.nodes * self.failures_per_node_year / YEAR

    @property
    def chunks(self) -> float:
        """Return how many different chunks the fleet holds."""
        return self.nodes * self.node_bytes / self.copies / CHUNK_BYTES


def names_of(count: int) -> list[str]:
    """Return addresses of nodes."""
    return [f"10.{one >> 16}.{one >> 8 & 255}.{one & 255}:6379" for one in range(count)]


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table as the documents have it."""
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|{'---:|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(str(cell) for cell in row)} |")


def balance(counts: Sequence[int], keys: int) -> None:
    """Print how evenly rendezvous hashing spreads chunks, and what it costs to ask it."""
    rows = []
    for count in counts:
        nodes = names_of(count)
        load: Counter[str] = Counter()
        started = perf_counter()
        for key in range(keys):
            load.update(rank(b"m:c:%d" % key, nodes)[:2])
        seconds = (perf_counter() - started) / keys
        mean = 2 * keys / count
        spread = math.sqrt(sum((load[node] - mean) ** 2 for node in nodes) / count) / mean
        # Copies fall like balls into urns, but never two of a chunk into one.
        ideal = math.sqrt((1 - 2 / count) / mean)
        per_node = 1e12 / CHUNK_BYTES
        rows.append(
            [
                f"{count:,}", f"{mean:,.0f}", f"{max(load.values()) / mean:.3f}",
                f"{spread:.4f}", f"{ideal:.4f}", f"{1 / math.sqrt(per_node):.4f}",
                f"{seconds * 1e6:,.0f}",
            ]
        )  # fmt: skip
    table(
        f"Balance: {keys:,} chunks, 2 copies each",
        ["nodes", "copies per node", "fullest / mean", "spread", "of urns",
         "spread at 1 TB a node", "us per key"],
        rows,
    )  # fmt: skip


def movement(counts: Sequence[int], keys: int) -> None:
    """Print what moves when a tenth more nodes come, beside the least that could."""
    rows = []
    for count in counts:
        more = max(1, count // 10)
        nodes = names_of(count + more)
        new = set(nodes[count:])
        ranked = [rank(b"m:c:%d" % key, nodes) for key in range(keys)]
        for copies in (2, 3):
            length = list_length(count, copies)
            moved = sum(len(new.intersection(one[:copies])) for one in ranked) / keys / copies
            listed = sum(len(new.intersection(one[:length])) for one in ranked) / keys / length
            least = more / (count + more)
            rows.append(
                [
                    f"{count:,} + {more}", copies, f"{moved:.3%}", f"{least:.3%}",
                    f"{moved / least:.2f}", f"{listed / least:.2f}",
                    format_size(moved * count * 1e12),
                ]
            )  # fmt: skip
    table(
        f"Movement when nodes come (and the same when they go), {keys:,} chunks",
        ["nodes", "copies", "of the chunks", "least", "ratio", "of the registers, ratio",
         "bytes at 1 TB a node"],
        rows,
    )  # fmt: skip


def growth(counts: Sequence[int]) -> None:
    """Print what grows with nodes, and what only with bytes and keys."""
    rows = []
    for count in counts:
        nodes = names_of(count)
        started = perf_counter()
        for key in range(200):
            rank(b"%d" % key, nodes)
        place = (perf_counter() - started) / 200
        held = 1e12 * count
        rows.append(
            [
                f"{count:,}", format_size(held), format_size(held / 2),
                f"{held / CHUNK_BYTES / 1e6:,.1f} M", f"{1e12 / CHUNK_BYTES / 1e3:,.0f} k",
                f"{place * 1e6:,.0f} us", f"{count * 2:,}", f"{count}",
            ]
        )  # fmt: skip
    table(
        "What grows: plain servers of 1 TB, two copies, chunks of 4 MiB",
        ["nodes", "raw", "usable", "chunk copies in all", "per node", "to place one key",
         "connections of a client", "heartbeats a second of a client"],
        rows,
    )  # fmt: skip


def simulated_years(fleet: Fleet, *, paired: bool, losses: int, seed: int) -> float:
    """Return the mean time to the loss of a chunk, by letting nodes fail one after the other.

    Failures are independent and come at a constant rate; a node that failed is empty, and what it
    held has its copies again after `repair_seconds`, evenly over that time. Chunks are either
    spread over every set of nodes, or, `paired`, each node has its own fixed replicas.
    """
    draw = random.Random(seed)
    now = 0.0
    found = 0
    down: list[tuple[float, float, int]] = []  # (repaired, failed, node), first repaired first.
    for _ in range(EVENTS):
        now += draw.expovariate(fleet.failures_per_second)
        while down and down[0][0] <= now:
            heapq.heappop(down)
        node = draw.randrange(fleet.nodes)
        if any(one[2] == node for one in down):
            continue
        others = [
            one for one in down if not paired or one[2] // fleet.copies == node // fleet.copies
        ]
        shares = sorted(1 - (now - failed) / fleet.repair_seconds for _, failed, _ in others)
        heapq.heappush(down, (now + fleet.repair_seconds, now, node))
        if draw.random() < loss_chance(fleet, shares, paired=paired):
            found += 1
            down.clear()
        if found == losses:
            break
    return now / found / YEAR if found >= SEEN else math.nan


def lost_bytes(fleet: Fleet, shares: Sequence[float], *, paired: bool) -> float:
    """Return the bytes whose last copy goes with a node, to be expected.

    `shares` is what the nodes that are down have not yet been given back, in ascending order.
    """
    others = fleet.copies - 1
    if len(shares) < others:
        return 0.0
    whole = fleet.node_bytes * math.prod(shares[len(shares) - others :])
    if paired:
        return whole
    # Of what this node held, the share whose other copies lay on the very nodes that are down.
    return whole * math.comb(len(shares), others) / math.comb(fleet.nodes - 1, others)


def loss_chance(fleet: Fleet, shares: Sequence[float], *, paired: bool) -> float:
    """Return the chance that at least one chunk goes with a node."""
    return -math.expm1(-lost_bytes(fleet, shares, paired=paired) / CHUNK_BYTES)


def computed(fleet: Fleet, *, paired: bool) -> tuple[float, float]:
    """Return the years to a loss by the chain of rates, and the bytes lost each time.

    As many nodes as it takes fail within one repair, at ages that are even over it; more at once
    are left out, so that it is a little too good where repairs are slow.
    """
    others = fleet.copies - 1
    candidates = others if paired else fleet.nodes - 1
    during = fleet.failures_per_node_year / YEAR * fleet.repair_seconds
    together = math.comb(candidates, others) * during**others
    draw = random.Random(3)
    ages = [sorted(draw.random() for _ in range(others)) for _ in range(4000)]
    chances = [loss_chance(fleet, one, paired=paired) for one in ages]
    bytes_ = [lost_bytes(fleet, one, paired=paired) for one in ages]
    chance = sum(chances) / len(chances)
    each = max(CHUNK_BYTES, sum(bytes_) / len(bytes_) / chance)
    return 1 / (fleet.failures_per_second * together * chance) / YEAR, each


def loss(base: Fleet, losses: int) -> None:
    """Print how long the data live, by copies, layout and speed of repair."""
    rows = []
    for nodes, copies, speed in (
        (10, 2, 1e9), (100, 2, 1e9), (100, 3, 1e9), (1000, 2, 1e9), (1000, 3, 1e9),
        (1000, 2, 50e9), (1000, 3, 50e9), (1000, 4, 50e9),
    ):  # fmt: skip
        fleet = replace(base, nodes=nodes, copies=copies, repair_bytes_per_second=speed)
        row = [
            f"{nodes:,}", copies, f"{speed / 1e9:.0f}", f"{fleet.repair_seconds / 60:,.1f}",
        ]  # fmt: skip
        # A replica is filled by its primary alone, even if other nodes are idle.
        for layout, paired in ((fleet, False), (replace(fleet, repair_bytes_per_second=1e9), True)):
            seen = simulated_years(layout, paired=paired, losses=losses, seed=1)
            years, bytes_ = computed(layout, paired=paired)
            row += [_years(years), _years(seen), format_size(bytes_)]
        rows.append(row)
    table(
        f"Years until the first chunk is lost: {base.failures_per_node_year:g} failures a node "
        f"and year, {format_size(base.node_bytes)} a node; simulated until {losses} losses",
        ["nodes", "copies", "repair GB/s", "repair minutes", "chunks spread over all: years",
         "simulated", "lost each time", "fixed replicas, repair 1 GB/s: years", "simulated",
         "lost each time"],
        rows,
    )  # fmt: skip


def _years(years: float) -> str:
    if math.isnan(years):
        return "too rare"
    if years < 0.1:
        return f"{years * 365:.2g} days"
    return f"{years:,.1f}" if years < 1e4 else f"{years:.1e}"


def repair(base: Fleet) -> None:
    """Print what repairs cost the network, steadily and at a failure."""
    rows = []
    for nodes in (10, 100, 1000):
        fleet = replace(base, nodes=nodes)
        per_day = fleet.failures_per_second * DAY
        traffic = per_day * fleet.node_bytes
        rows.append(
            [
                f"{nodes:,}", f"{per_day:.2f}", format_size(traffic),
                format_size(traffic / DAY) + "/s", f"{traffic / (nodes * fleet.node_bytes):.3%}",
                f"{fleet.node_bytes / 1e9 / 60:,.1f}", f"{fleet.node_bytes / 50e9 / 60:,.2f}",
                format_size(fleet.node_bytes / (nodes - 1)),
            ]
        )  # fmt: skip
    table(
        "Repair traffic",
        ["nodes", "failures a day", "bytes a day", "on average", "of all bytes, a day",
         "minutes by one client of 1 GB/s", "by 50 clients", "each other node gives"],
        rows,
    )  # fmt: skip


def main() -> None:
    """Run every table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=2000, help="chunks to place")
    parser.add_argument("--losses", type=int, default=300, help="losses to simulate")
    parser.add_argument("--node-bytes", type=float, default=1e12)
    parser.add_argument("--failures", type=float, default=2.0, help="of a node, a year")
    given = parser.parse_args()
    base = Fleet(node_bytes=given.node_bytes, failures_per_node_year=given.failures)
    counts = (3, 10, 100, 1000)
    print(__doc__)
    balance(counts, given.keys)
    movement((10, 100, 1000), given.keys)
    growth(counts)
    repair(base)
    loss(base, given.losses)


if __name__ == "__main__":
    main()
