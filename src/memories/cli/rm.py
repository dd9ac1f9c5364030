"""`memories rm`: removes keys, after asking for confirmation."""

from __future__ import annotations

from pathlib import Path

import click

from memories.cli.exit_codes import USAGE, CliFailure
from memories.cli.output import escape, print_json, unescape
from memories.cli.store import json_option, opened, store_argument


@click.command()
@store_argument
@click.argument("keys", nargs=-1)
@click.option("-p", "--prefix", help="Remove every key that starts with this.")
@click.option("-e", "--escaped", is_flag=True, help="The keys are escaped, as ls prints them.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
def rm(
    store: Path,
    glacier: str | None,
    keys: tuple[str, ...],
    prefix: str | None,
    escaped: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Remove KEYS from every tier of STORE, or all that start with a prefix.

    If one of the keys is absent, no key is removed. Archived objects are deleted after their grace
    time.
    """
    if bool(keys) == (prefix is not None):
        raise CliFailure("name the keys to remove, or give a --prefix", exit_code=USAGE)
    with opened(store, glacier, read_only=False) as manager:
        if prefix is None:
            chosen = [unescape(key) if escaped else key for key in keys]
            for key in chosen:
                manager.get_tier(key)
        else:
            chosen = list(manager.scan(unescape(prefix) if escaped else prefix))
        _confirm(chosen, yes)
        for key in chosen:
            manager.delete(key)
    if as_json:
        print_json({"store": str(store), "removed": len(chosen)})
    else:
        click.echo(f"{len(chosen):,} keys removed", err=True)


def _confirm(keys: list[str], yes: bool) -> None:
    if keys and not yes:
        what = escape(keys[0]) if len(keys) == 1 else f"{len(keys):,} keys"
        click.confirm(f"Remove {what}?", abort=True, err=True)
