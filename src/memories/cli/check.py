"""`memories check`: verifies every value of a store against its checksums."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from memories.backends.base import Problem
from memories.backends.disk import DiskBackend
from memories.backends.disk.check import EMPTIED
from memories.cli.exit_codes import DAMAGED, UNAVAILABLE
from memories.cli.output import escape, print_json
from memories.cli.store import configured_key, json_option, opened, store_argument
from memories.errors import CorruptDataError
from memories.progress import bar


@click.command()
@store_argument
@json_option
@click.option("--repair", is_flag=True, help="Remove damaged values and repair the index.")
@click.option("--dry-run", is_flag=True, help="With --repair: only print what it would do.")
@click.pass_context
def check(
    context: click.Context,
    store: Path,
    glacier: str | None,
    as_json: bool,
    repair: bool,
    dry_run: bool,
) -> None:
    """Read and verify every value of STORE; change nothing without --repair.

    Each problem is a line: its key, what is wrong, and with --repair the remedy. Removed values are
    moved to `lost+found` beside the store, with a report; missing and unreadable files are left as
    they are. The exit code is 4 if a problem was not repaired, and 5 if there is no problem but
    something could not be checked.
    """
    problems: list[Problem] = []
    with ExitStack() as stack:
        try:
            manager = stack.enter_context(opened(store, glacier, read_only=not repair))
        except CorruptDataError as error:
            if not repair:
                raise
            # Only a repair opens a store whose log is damaged and whose index is lost.
            problems.append(Problem(None, str(error), not dry_run, remedy=EMPTIED))
            keys = 0
            if not dry_run:
                master = configured_key()
                with DiskBackend(store / "cold", repair=True, encryption=master) as backend:
                    problems += backend.check(repair=True)
                manager = stack.enter_context(opened(store, glacier, read_only=False))
        if not dry_run or not problems:
            keys = len(manager)
            with bar("verified") as show:
                problems += manager.check(repair=repair, dry_run=dry_run, progress=show)
    damage = [problem for problem in problems if not problem.unchecked]
    if as_json:
        rows = [
            {
                "key": problem.key,
                "what": problem.what,
                "repaired": problem.repaired,
                "unchecked": problem.unchecked,
                "remedy": problem.remedy,
            }
            for problem in problems
        ]
        print_json({"store": str(store), "keys": keys, "problems": rows})
    else:
        for problem in problems:
            key = "-" if problem.key is None else escape(problem.key)
            remedy = f"\t{escape(problem.remedy)}" if repair and problem.remedy else ""
            click.echo(f"{key}\t{escape(problem.what)}{remedy}")
        count = f"{len(damage):,} problems"
        if len(damage) < len(problems):
            count = (
                f"{count if damage else 'no problem'} in what was checked, which was not everything"
            )
        click.echo(f"{keys:,} keys, {count}", err=True)
    if any(not problem.repaired for problem in damage):
        context.exit(DAMAGED)
    context.exit(UNAVAILABLE if len(damage) < len(problems) else 0)
