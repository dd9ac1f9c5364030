"""`memories top`: shows a store live in the terminal, or once for a script.

It reads the telemetry file of the store's writer, and so does not slow the writer down.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from memories.cli.exit_codes import CliFailure
from memories.cli.output import print_json
from memories.cli.store import json_option, store_argument
from memories.cli.telemetry_source import FileSource
from memories.cli.top.keys import SORTS, TopView


@click.command()
@store_argument
@click.option("--once", is_flag=True, help="Print one screen and exit.")
@click.option(
    "--interval", default=1.0, show_default=True, type=click.FloatRange(0.1, 3600), help="Seconds."
)
@click.option("--sort", type=click.Choice(SORTS), default=SORTS[0], show_default=True)
@click.option("--filter", "pattern", default="", help="Show only keys that contain this.")
@json_option
def top(
    store: Path,
    glacier: str | None,
    once: bool,
    interval: float,
    sort: str,
    pattern: str,
    as_json: bool,
) -> None:
    """Watch the tiers, the hottest keys and the moves of STORE.

    Keys: s sorts by the next column, / filters, p pauses, ? helps, q ends. With --json it
    prints one object at each interval, or with --once a single one.
    """
    source = FileSource(store, glacier)
    view = TopView(sort=sort, pattern=pattern)
    if as_json:
        _print_json(source, once, interval)
    elif once:
        from memories.cli.top.screen import show_once

        show_once(source, view)
    else:
        _live(source, view, interval)


def _print_json(source: FileSource, once: bool, interval: float) -> None:
    import time

    print_json(dict(source.document()))
    while not once:
        time.sleep(interval)
        print_json(dict(source.document()))


def _live(source: FileSource, view: TopView, interval: float) -> Any:
    import sys

    if not sys.stdout.isatty():
        raise CliFailure("the output is not a terminal; use --once or --json", exit_code=2)
    from memories.cli.top.screen import show_live

    show_live(source, view, interval)
