"""`memories import`: brings what another cache holds over."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from memories.cli.exit_codes import DAMAGED
from memories.cli.output import escape, print_json
from memories.cli.store import json_option


@click.group("import")
def importing() -> None:
    """Bring what another cache holds over."""


@importing.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("target", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--trust-pickles", is_flag=True,
    help="Read pickles as well: they run code of users who could write SOURCE.",
)  # fmt: skip
@json_option
@click.pass_context
def diskcache(
    context: click.Context, source: Path, target: Path, trust_pickles: bool, as_json: bool
) -> None:
    """Store the items of the diskcache directory SOURCE in TARGET, a new directory.

    A program then opens TARGET with memories.diskcache. Numbers, text and bytes are brought over
    as they are, with their order, tags and times of expiry, and read back; so are the size limit
    and the eviction policy. Run it again to go on after an interruption. SOURCE is not changed.
    The exit code is 4 if an item could not be read.
    """
    from memories.integrations.diskcache.cache import Cache
    from memories.integrations.diskcache.importing import import_directory, settings_of

    with Cache(target, eviction_policy="none") as cache:
        report = import_directory(source, cache, trust_pickles=trust_pickles, progress=not as_json)
        for name, value in settings_of(source).items():
            cache.reset(name, value)
    if as_json:
        print_json({**asdict(report), "target": str(target)})
    else:
        click.echo(f"imported  {report.imported:,}")
        for name, count in (("present", report.present), ("expired", report.expired)):
            if count:
                click.echo(f"{name}   {count:,}")
        for key, reason in report.failed:
            click.echo(f"failed    {escape(key)}: {escape(reason)}")
        if report.pickles:
            click.echo(
                f"{report.pickles:,} items are pickles and were left out: --trust-pickles reads "
                "them, which runs code of users who could write the directory",
                err=True,
            )
    context.exit(DAMAGED if report.failed else 0)
