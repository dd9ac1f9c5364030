"""`memories simulate`: replays a trace through the eviction policies of the tiers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from memories.cli.output import print_json
from memories.cli.store import json_option

if TYPE_CHECKING:
    from memories.simulate.traces import Trace

SHARES = "1,3,10,20"


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("-p", "--policy", "names", multiple=True, help="A policy; by default all of them.")
@click.option(
    "-c",
    "--capacity",
    "capacities",
    multiple=True,
    help=f"A size, like 2GB, or a percentage of all bytes, like 10%; {SHARES} % by default.",
)
@click.option(
    "--tiers",
    help="Hot, warm and cold, like 8GB,32GB,500GB or 3%,7%,20%: replay through all four tiers.",
)
@click.option("--prefetch", is_flag=True, help="Prefetch what the predictors expect.")
@click.option("--plot", type=click.Path(path_type=Path), help="Plot the ratios into this file.")
@json_option
def simulate(
    trace: Path,
    names: tuple[str, ...],
    capacities: tuple[str, ...],
    tiers: str | None,
    prefetch: bool,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Replay TRACE, a .npz or .jsonl of accesses, and print the miss ratios.

    First accesses are not counted, since in practice they are stores. Traces of a program are
    written by `MemoryManager.record_trace`. With --tiers it prints which tier answers, and the time
    of a read, beside a chain of LRUs of the same sizes.
    """
    from memories import policies
    from memories.simulate.traces import read_trace

    for name in names:
        policies.require_known(name)
    accesses = read_trace(trace)
    if tiers is not None:
        _simulate_tiers(trace, accesses, names or ("auto",), tiers, as_json)
        return
    chosen = list(names) or list(policies.names())
    sizes = [_bytes_of(text, accesses) for text in capacities or _percent(SHARES)]
    rows = [_row(accesses, name, size, prefetch) for name in chosen for size in sizes]
    if as_json:
        print_json(
            {
                "trace": str(trace), "requests": len(accesses.keys),
                "keys": accesses.distinct_keys, "bytes": accesses.footprint_bytes, "rows": rows,
            }
        )  # fmt: skip
    else:
        _show(accesses, chosen, sizes, rows)
    if plot is not None:
        from memories.observe.analytics.plots import plot_ratios

        plot_ratios(_lines(chosen, rows), plot)


def _simulate_tiers(
    path: Path, trace: Trace, names: tuple[str, ...], tiers: str, as_json: bool
) -> None:
    from memories.backends.disk.size_limits import room_for_values
    from memories.errors import InvalidOptionError
    from memories.migration.simulated_tiers import SimulatedTiers, lru_chain
    from memories.model.tiers import TierName

    texts = tiers.split(",")
    if len(texts) != 3:
        raise InvalidOptionError(f"--tiers={tiers!r} must be three sizes: of hot, warm and cold")
    sizes = [_bytes_of(text, trace, "--tiers") for text in texts]
    capacities: dict[TierName, int] = dict(zip(TierName, sizes, strict=False))
    stored = list(dict(zip(trace.keys, trace.sizes, strict=True)).values())
    cold = capacities[TierName.COLD]
    # At most as many values lie in the archive as neither RAM nor the disk can hold.
    below = max(0, sum(stored) - sum(sizes)) * len(stored) // max(sum(stored), 1)
    room = {**capacities, TierName.COLD: room_for_values(cold, stored, below)}
    results = {name: SimulatedTiers(room, name).replay(trace) for name in names}
    results["LRU chain"] = lru_chain(trace, room)
    rows: list[dict[str, Any]] = [
        {
            "policy": name, **{f"{tier}": result.share(tier) for tier in TierName},
            "seconds_per_read": result.seconds_per_read, "moved": result.moved,
        }
        for name, result in results.items()
    ]  # fmt: skip
    if as_json:
        tiers_bytes = {str(name): size for name, size in capacities.items()}
        print_json(
            {
                "trace": str(path), "requests": len(trace.keys), "keys": trace.distinct_keys,
                "bytes": trace.footprint_bytes, "tiers": tiers_bytes,
                "cold_values": room[TierName.COLD], "rows": rows,
            }
        )  # fmt: skip
        return
    click.echo(_summary(trace) + "; repeated reads that each tier answers")
    columns = [*TierName, "ms a read", "moved"]
    click.echo(f"{'policy':<12}" + "".join(f"{column:>12}" for column in columns))
    for row in rows:
        figures = [row[str(tier)] for tier in TierName] + [1e3 * row["seconds_per_read"]]
        shares = "".join(f"{figure:>12.3f}" for figure in figures)
        click.echo(f"{row['policy']:<12}{shares}{row['moved']:>12.2f}")
    click.echo("moved: bytes for each byte stored or read")
    click.echo(f"values may take {room[TierName.COLD] / max(cold, 1):.0%} of cold, in both")


def _percent(shares: str) -> list[str]:
    return [f"{share}%" for share in shares.split(",")]


def _bytes_of(text: str, trace: Trace, name: str = "--capacity") -> int:
    from memories.errors import InvalidOptionError
    from memories.foundation.units import parse_size

    if not text.endswith("%"):
        return parse_size(text, name=name)
    try:
        share = float(text[:-1]) / 100
    except ValueError:
        share = 0.0
    if not share > 0:
        raise InvalidOptionError(f"{name}={text!r} must be a size, or a percentage above 0")
    return max(1, int(share * trace.footprint_bytes))


def _row(trace: Trace, name: str, capacity: int, prefetch: bool) -> dict[str, Any]:
    from memories import policies
    from memories.policies.predictors import Prefetcher
    from memories.simulate.simulator import UNREAD_SHARE, replay

    ahead = Prefetcher(budget_bytes=capacity // UNREAD_SHARE) if prefetch else None
    outcome = replay(trace, policies.make(name, capacity), ahead)
    row = {
        "policy": name, "capacity_bytes": capacity,
        "miss_ratio": outcome.miss_ratio, "byte_miss_ratio": outcome.byte_miss_ratio,
        "re_access_miss_ratio": outcome.re_access_miss_ratio, "evictions": outcome.evictions,
    }  # fmt: skip
    return {**row, "prefetch": outcome.prefetch} if prefetch else row


def _show(trace: Trace, names: list[str], sizes: list[int], rows: list[dict[str, Any]]) -> None:
    from memories.foundation.units import format_size

    click.echo(_summary(trace) + "; misses of repeated accesses")
    click.echo(f"{'policy':<12}" + "".join(f"{format_size(size):>12}" for size in sizes))
    ratios = {(row["policy"], row["capacity_bytes"]): row["re_access_miss_ratio"] for row in rows}
    for name in names:
        click.echo(f"{name:<12}" + "".join(f"{ratios[name, size]:>12.3f}" for size in sizes))


def _summary(trace: Trace) -> str:
    from memories.foundation.units import format_size

    return (
        f"{len(trace.keys):,} accesses to {trace.distinct_keys:,} keys, "
        f"{format_size(trace.footprint_bytes)}"
    )


def _lines(names: list[str], rows: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    return {
        name: sorted(
            (row["capacity_bytes"], row["re_access_miss_ratio"])
            for row in rows
            if row["policy"] == name
        )
        for name in names
    }
