"""`memories key`: the keys that say which objects may run code when they are read."""

from __future__ import annotations

from typing import IO

import click


@click.group()
def key() -> None:
    """Show, export and import the keys that sign and verify pickled objects."""


@key.command("list")
def list_keys() -> None:
    """Print the public ids of the keys trusted here; the first of the file signs."""
    from memories.codecs.trust import Keyring

    ring = Keyring()
    trusted = ring.keys()
    for known in trusted:
        click.echo(known.id)
    click.echo(f"from {ring.path}", err=True)


@key.command("export")
def export_key() -> None:
    """Print this user's own key, a secret: whoever has it can sign in this user's name."""
    from memories.codecs.trust import Keyring

    click.echo(Keyring().export())
    click.echo("This is a secret. Whoever imports it trusts what you store.", err=True)


@key.command("import")
@click.argument("source", type=click.File("r"), default="-")
def import_key(source: IO[str]) -> None:
    """Trust the key in SOURCE (a file, or the standard input): what it signed may run code."""
    from memories.codecs.trust import Keyring

    known = Keyring().trust(source.read())
    click.echo(known.id)
    click.echo("trusted from now on", err=True)
