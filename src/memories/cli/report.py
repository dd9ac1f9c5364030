"""`memories report`: writes a page about a store into one HTML file."""

from __future__ import annotations

from pathlib import Path

import click

from memories.cli.output import print_json
from memories.cli.store import json_option, store_argument
from memories.cli.telemetry_source import FileSource


@click.command()
@store_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("memories-report.html"),
    show_default=True,
    help="Where to write it.",
)
@json_option
def report(store: Path, glacier: str | None, output: Path, as_json: bool) -> None:
    """Write a page about STORE: tiers, moves, hot keys, latencies, and charts if it was sampled.

    It has no scripts and loads no other files, so it can be archived and sent.
    """
    from memories.observe.analytics.report import write_report

    source = FileSource(store, glacier)
    write_report(output, source.document(), source.series())
    if as_json:
        print_json({"store": str(store), "output": str(output)})
    else:
        click.echo(f"written to {output}", err=True)
