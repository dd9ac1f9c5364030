"""`memories explain`: shows where a key is, why, and what will move it next."""

from __future__ import annotations

from pathlib import Path

import click

from memories.cli.live_writer import locate, not_found, ram_facts
from memories.cli.ls import facts
from memories.cli.output import escape, print_json, unescape
from memories.cli.store import json_option, store_argument


@click.command()
@store_argument
@click.argument("key")
@click.option("-e", "--escaped", is_flag=True, help="KEY is escaped, as ls prints it.")
@json_option
def explain(store: Path, glacier: str | None, key: str, escaped: bool, as_json: bool) -> None:
    """Show where KEY is in STORE, why, and what will move it next.

    If a process has the store open, its telemetry file says what is in its RAM, and the latest
    moves; it is up to a second old.
    """
    from memories.observe.analytics.telemetry_files import read_document

    key = unescape(key) if escaped else key
    found, writer, in_ram = locate(store, glacier, key)
    if found is None and in_ram is None:
        raise not_found(key, writer)
    document = read_document(store) or {}
    moves = [move for move in document.get("latest_moves", ()) if move["key"] == key]
    if as_json:
        known = facts(found) if found else {"key": key}
        print_json({**known, **ram_facts(writer, in_ram), "latest_moves": moves})
        return
    if writer is not None and in_ram is not None:
        if found is None:
            click.echo(writer.about_absent(key))
        else:
            click.echo(f"{key!r} is {writer.where(in_ram)}, and has a copy on the disk:")
    if found is not None:
        click.echo(str(found))
    for move in moves:
        click.echo(escape(f"  {move['source']} -> {move['target']} ({move['cause']})"))
