"""`memories stat`: shows the tiers of a store, or the properties of one key."""

from __future__ import annotations

from pathlib import Path

import click

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

    Values that are only in the memory of a running process are not in the store and not shown.
    """
    if key is None:
        _stat_store(store, glacier, as_json)
    else:
        _stat_key(store, glacier, unescape(key) if escaped else key, as_json)


def _stat_store(store: Path, glacier: str | None, as_json: bool) -> None:
    with opened(store, glacier) as manager:
        tiers = manager.stats().tiers
    durable = {name: tier for name, tier in tiers.items() if TierName(name).durable}
    if as_json:
        rows = {
            str(name): {"medium": tier.medium, "keys": tier.keys, "bytes": tier.used_bytes}
            for name, tier in durable.items()
        }
        print_json({"store": str(store), "tiers": rows})
        return
    for name, tier in durable.items():
        size = format_size(tier.used_bytes)
        click.echo(f"{name:<8}{tier.keys:>12,} keys{size:>12}  {tier.medium}")


def _stat_key(store: Path, glacier: str | None, key: str, as_json: bool) -> None:
    with opened(store, glacier) as manager:
        found = manager.explain(key)
    if as_json:
        print_json(facts(found))
        return
    click.echo(f"key       {escape(found.key)}")
    click.echo(f"tier      {found.tier}")
    click.echo(f"size      {format_size(found.size)} ({found.size:,} bytes)")
    click.echo(f"version   {found.version}")
    for name, value in found.metadata.items():
        click.echo(f"metadata  {escape(name)} = {escape(repr(value))}")
