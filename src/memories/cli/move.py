"""`memories move` and `memories pin`: move a value to a tier, and keep it there."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from memories.cli.output import escape, print_json, unescape
from memories.cli.store import json_option, opened, store_argument

escaped_option = click.option(
    "-e", "--escaped", is_flag=True, help="The key is escaped, as ls prints it."
)


@click.command()
@store_argument
@click.argument("key")
@click.argument("tier", type=click.Choice(["cold", "glacier"]))
@escaped_option
@json_option
def move(
    store: Path,
    glacier: str | None,
    key: str,
    tier: Literal["cold", "glacier"],
    escaped: bool,
    as_json: bool,
) -> None:
    """Move KEY to TIER, one of the durable tiers.

    Hot and warm are memory of a running program; only that program moves values there.
    """
    name = unescape(key) if escaped else key
    with opened(store, glacier, read_only=False) as manager:
        before = manager.get_tier(name)
        manager.migrate(name, tier)
    if as_json:
        print_json({"key": name, "source": before, "target": tier})
    else:
        click.echo(f"{escape(name)}: {before} to {tier}", err=True)


@click.command()
@store_argument
@click.argument("key")
@click.option("--off", is_flag=True, help="Allow it to move again.")
@escaped_option
@json_option
def pin(
    store: Path, glacier: str | None, key: str, off: bool, escaped: bool, as_json: bool
) -> None:
    """Forbid moving and evicting KEY, or allow it again."""
    name = unescape(key) if escaped else key
    with opened(store, glacier, read_only=False) as manager:
        if off:
            manager.unpin(name)
        else:
            manager.pin(name)
    if as_json:
        print_json({"key": name, "pinned": not off})
    else:
        click.echo(f"{escape(name)}: {'may move' if off else 'pinned'}", err=True)
