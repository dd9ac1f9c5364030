"""`memories key`: manages the keys that sign pickled objects, which run code when read."""

from __future__ import annotations

from typing import IO

import click

from memories.cli.output import print_json
from memories.cli.store import json_option


@click.group()
def key() -> None:
    """Show, export and import the keys that sign and verify pickled objects."""


@key.command("list")
@json_option
def list_keys(as_json: bool) -> None:
    """Print the public ids of the trusted keys; the first key of the file signs."""
    from memories.frames.signing import Keyring

    ring = Keyring()
    trusted = ring.keys()
    if as_json:
        print_json({"file": str(ring.path), "ids": [known.id for known in trusted]})
        return
    for known in trusted:
        click.echo(known.id)
    click.echo(f"from {ring.path}", err=True)


@key.command("export")
@json_option
def export_key(as_json: bool) -> None:
    """Print this user's own key, a secret that signs in this user's name."""
    from memories.frames.signing import Keyring

    secret = Keyring().export()
    if as_json:
        print_json({"secret": secret})
    else:
        click.echo(secret)
    click.echo("this is a secret; a user who imports it trusts what you store", err=True)


@key.command("import")
@click.argument("source", type=click.File("r"), default="-")
@json_option
def import_key(source: IO[str], as_json: bool) -> None:
    """Trust the key in SOURCE (a file, or the standard input): objects it signed may run code."""
    from memories.frames.signing import Keyring

    known = Keyring().trust(source.read())
    if as_json:
        print_json({"id": known.id, "trusted": True})
    else:
        click.echo(known.id)
        click.echo("trusted from now on", err=True)
