"""`memories advise`: computes from a trace what a larger tier would gain."""

from __future__ import annotations

from pathlib import Path

import click

from memories.cli.output import print_json
from memories.cli.store import json_option


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--hot", default="8 GB", show_default=True, help="Size of the hot tier.")
@click.option("--warm", default="32 GB", show_default=True, help="Size of the warm tier.")
@click.option("--cold", default="500 GB", show_default=True, help="Size of the cold tier.")
@click.option("--more", default="1 GB", show_default=True, help="The size to add to a tier.")
@json_option
def advise(trace: Path, hot: str, warm: str, cold: str, more: str, as_json: bool) -> None:
    """Show what a larger tier would gain, for each tier and the accesses in TRACE.

    TRACE is a file of `MemoryManager.record_trace`, or any .npz or .jsonl with time, key and size.
    A running program calls `MemoryManager.advise()` instead.
    """
    from memories.core.advise import advise_on
    from memories.foundation.units import parse_size
    from memories.model.tiers import TierName
    from memories.simulate.traces import read_trace

    capacities = {
        TierName.HOT: parse_size(hot, name="--hot"),
        TierName.WARM: parse_size(warm, name="--warm"),
        TierName.COLD: parse_size(cold, name="--cold"),
    }
    advice = advise_on(read_trace(trace), capacities, parse_size(more, name="--more"))
    if not as_json:
        click.echo(str(advice))
        return
    tiers = {
        str(name): {
            "capacity_bytes": tier.capacity_bytes,
            "measured_percent": tier.measured_percent,
            "answered_percent": tier.answered_percent,
            "gain_percent": tier.gain_percent,
            "saved_seconds": tier.saved_seconds,
        }
        for name, tier in advice.tiers.items()
    }
    print_json({"reads": advice.reads, "more_bytes": advice.more_bytes, "tiers": tiers})
