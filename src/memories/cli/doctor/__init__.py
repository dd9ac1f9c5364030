"""`memories doctor`: looks at the machine, and at a store if told one, and says what to change.

It changes nothing. What it finds is a list of findings, each fine, worth a change or wrong; a
check that cannot be made says so instead of being left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from memories.cli.doctor.result import DoctorResult, Level
from memories.cli.exit_codes import FAILED
from memories.cli.output import escape, print_json
from memories.cli.store import json_option


@click.command()
@click.argument("store", type=click.Path(path_type=Path), required=False)
@click.option("--glacier", metavar="URL", help="An archive to look at, by asking it for a list.")
@click.option("--node", "nodes", multiple=True, metavar="HOST:PORT", help="A node to look at.")
@json_option
@click.pass_context
def doctor(
    context: click.Context,
    store: Path | None,
    glacier: str | None,
    nodes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Look at this machine, and at STORE, and say what to change.

    Without STORE the directory for temporary files is measured. Exits with 1 if something is
    wrong; what could only be better does not count.
    """
    findings = list(look(store, glacier, nodes))
    if as_json:
        print_json({"findings": [one.as_json() for one in findings]})
    else:
        for one in findings:
            click.echo(f"{one.level:<5} {one.name:<14} {escape(one.what)}")
            if one.advice:
                click.echo(f"{'':<20} -> {escape(one.advice)}")
        bad = sum(one.level is Level.BAD for one in findings)
        better = sum(one.level is Level.WARN for one in findings)
        click.echo(f"{bad} wrong, {better} could be better", err=True)
    context.exit(FAILED if any(one.level is Level.BAD for one in findings) else 0)


def look(store: Path | None, glacier: str | None, nodes: tuple[str, ...]) -> Iterator[DoctorResult]:
    """Yield what is found, the cheap looks first."""
    from memories.cli.doctor import disk, machine, remote

    yield from machine.look()
    yield from disk.look(store)
    yield from remote.look(glacier, nodes)
