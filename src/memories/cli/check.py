"""`memories check`: every value of a store, verified against its checksums."""

from __future__ import annotations

from pathlib import Path

import click

from memories.cli.failure import DAMAGED, UNAVAILABLE
from memories.cli.store import json_option, opened, store_argument
from memories.cli.words import escape, print_json
from memories.progress import bar


@click.command()
@store_argument
@json_option
@click.option("--repair", is_flag=True, help="Drop what is damaged and mend the index.")
@click.pass_context
def check(
    context: click.Context, store: Path, glacier: str | None, as_json: bool, repair: bool
) -> None:
    """Read every value of STORE and verify it; change nothing unless told to repair.

    Each problem is a line: the key it concerns, and what is wrong. Exits with 4 if there is one
    that was not repaired, and with 5 if there is none but something could not be looked at.
    """
    with opened(store, glacier, read_only=not repair) as manager:
        keys = len(manager)
        with bar("verified") as show:
            problems = manager.check(repair=repair, progress=show)
    damage = [problem for problem in problems if not problem.unchecked]
    if as_json:
        rows = [
            {
                "key": problem.key,
                "what": problem.what,
                "repaired": problem.repaired,
                "unchecked": problem.unchecked,
            }
            for problem in problems
        ]
        print_json({"store": str(store), "keys": keys, "problems": rows})
    else:
        for problem in problems:
            key = "-" if problem.key is None else escape(problem.key)
            click.echo(f"{key}\t{escape(problem.what)}")
        rest = "" if len(damage) == len(problems) else "; not everything was looked at"
        click.echo(f"{keys:,} keys, {len(damage):,} problems{rest}", err=True)
    if any(not problem.repaired for problem in damage):
        context.exit(DAMAGED)
    context.exit(UNAVAILABLE if len(damage) < len(problems) else 0)
