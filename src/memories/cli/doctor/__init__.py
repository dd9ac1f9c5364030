"""`memories doctor`: checks the machine, and a store if one is given, and suggests changes.

It changes nothing. Each result is fine, a warning or bad, with advice. A check that cannot be made
is reported instead of left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from memories.cli.doctor.result import DoctorResult, Level
from memories.cli.exit_codes import FAILED
from memories.cli.output import escape, print_json
from memories.cli.store import json_option
from memories.errors import MemoriesError


@click.command()
@click.argument("store", type=click.Path(path_type=Path), required=False)
@click.option("--glacier", metavar="URL", help="An archive to check, by listing it.")
@click.option("--node", "nodes", multiple=True, metavar="HOST:PORT", help="A node to check.")
@json_option
@click.pass_context
def doctor(
    context: click.Context,
    store: Path | None,
    glacier: str | None,
    nodes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check this machine, and STORE, and suggest changes.

    Without STORE the directory for temporary files is measured. The exit code is 1 if something is
    wrong; warnings do not count.
    """
    results = list(check(store, glacier, nodes))
    if as_json:
        print_json({"findings": [one.as_json() for one in results]})
    else:
        for one in results:
            click.echo(f"{one.level:<5} {one.name:<14} {escape(one.what)}")
            if one.advice:
                click.echo(f"{'':<20} -> {escape(one.advice)}")
        bad = sum(one.level is Level.BAD for one in results)
        better = sum(one.level is Level.WARN for one in results)
        click.echo(f"{bad} wrong, {better} could be better", err=True)
    context.exit(FAILED if any(one.level is Level.BAD for one in results) else 0)


def check(
    store: Path | None, glacier: str | None, nodes: tuple[str, ...]
) -> Iterator[DoctorResult]:
    """Yield the results, those of the cheap checks first."""
    from memories.cli.doctor import disk, machine, remote
    from memories.cli.doctor.sizes import sizes_of

    try:
        sizes = sizes_of(store)
    except MemoriesError:
        sizes = None  # The checks of the configuration and of the store report it.
    yield from machine.check(sizes)
    yield from disk.check(store, sizes)
    yield from remote.check(glacier, nodes)
