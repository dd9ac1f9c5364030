"""`memories stat`: shows the tiers of a store, or the properties of one key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from memories.cli.live_writer import LiveWriter, locate, not_found, ram_facts, writer_of
from memories.cli.ls import facts
from memories.cli.output import escape, print_json, unescape
from memories.cli.store import json_option, opened, store_argument
from memories.foundation.units import format_size
from memories.model.tiers import TierName


@click.command()
@store_argument
@click.argument("key", required=False)
@click.option("-e", "--escaped", is_flag=True, help="KEY is escaped, as ls prints it.")
@json_option
def stat(store: Path, glacier: str | None, key: str | None, escaped: bool, as_json: bool) -> None:
    """Show the tiers of STORE, or the properties of KEY.

    If a process has the store open, what it has in its RAM is shown as it was up to a second ago.
    """
    if key is None:
        _stat_store(store, glacier, as_json)
    else:
        _stat_key(store, glacier, unescape(key) if escaped else key, as_json)


def _stat_store(store: Path, glacier: str | None, as_json: bool) -> None:
    with opened(store, glacier) as manager:
        tiers = manager.stats().tiers
    durable = {name: tier for name, tier in tiers.items() if TierName(name).durable}
    writer = writer_of(store)
    if as_json:
        rows = {
            str(name): {"medium": tier.medium, "keys": tier.keys, "bytes": tier.used_bytes}
            for name, tier in durable.items()
        }
        ram = None if writer is None else _ram_of(writer)
        print_json({"store": str(store), "tiers": rows, "ram": ram})
        return
    if writer is not None:
        for name, row in writer.tiers.items():
            _print_tier(name, row["keys"], row["used_bytes"], f"RAM of pid {writer.pid}")
    for name, tier in durable.items():
        _print_tier(name, tier.keys, tier.used_bytes, tier.medium)
    if writer is not None and writer.unwritten:
        click.echo(f"{writer.unwritten:,} of the values in RAM are not on the disk", err=True)


def _print_tier(name: str, keys: int, used_bytes: int, medium: str) -> None:
    click.echo(f"{name:<8}{keys:>12,} keys{format_size(used_bytes):>12}  {medium}")


def _ram_of(writer: LiveWriter) -> dict[str, Any]:
    tiers = {
        name: {"keys": row["keys"], "bytes": row["used_bytes"]}
        for name, row in writer.tiers.items()
    }
    return {"pid": writer.pid, "tiers": tiers, "unwritten": writer.unwritten}


def _stat_key(store: Path, glacier: str | None, key: str, as_json: bool) -> None:
    found, writer, in_ram = locate(store, glacier, key)
    if found is None and in_ram is None:
        raise not_found(key, writer)
    if as_json:
        print_json({**(facts(found) if found else {"key": key}), **ram_facts(writer, in_ram)})
        return
    click.echo(f"key       {escape(key)}")
    if writer is not None and in_ram is not None:
        click.echo(f"tier      {in_ram.tier}, in the RAM of pid {writer.pid}")
        if found is None:
            click.echo(f"size      {format_size(in_ram.size)} ({in_ram.size:,} bytes)")
            click.echo("durable   no, not on the disk yet")
    if found is None:
        return
    click.echo(f"tier      {found.tier}{', a copy' if in_ram else ''}")
    click.echo(f"size      {format_size(found.size)} ({found.size:,} bytes)")
    click.echo(f"version   {found.version}")
    for name, value in found.metadata.items():
        click.echo(f"metadata  {escape(name)} = {escape(repr(value))}")
