"""`memories explain`: shows where a key is, why, and what will move it next."""

from __future__ import annotations

from pathlib import Path

import click

from memories.cli.ls import facts
from memories.cli.output import print_json, unescape
from memories.cli.store import json_option, opened, store_argument


@click.command()
@store_argument
@click.argument("key")
@click.option("-e", "--escaped", is_flag=True, help="KEY is escaped, as ls prints it.")
@json_option
def explain(store: Path, glacier: str | None, key: str, escaped: bool, as_json: bool) -> None:
    """Show where KEY is in STORE, why, and what will move it next.

    Values that are only in the memory of a running process are not in the store. The latest moves
    of the key are shown if its writer has recorded them in the telemetry file.
    """
    from memories.observe.analytics.telemetry_files import read_document

    key = unescape(key) if escaped else key
    with opened(store, glacier) as manager:
        found = manager.explain(key)
    document = read_document(store) or {}
    moves = [move for move in document.get("latest_moves", ()) if move["key"] == key]
    if as_json:
        print_json({**facts(found), "latest_moves": moves})
        return
    click.echo(str(found))
    for move in moves:
        click.echo(f"  {move['source']} -> {move['target']} ({move['cause']})")
