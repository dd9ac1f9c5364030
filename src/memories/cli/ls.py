"""`memories ls`: lists the keys of a store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from memories.cli.live_writer import writer_of
from memories.cli.output import escape, jsonable, print_json
from memories.cli.store import (
    configured_key,
    json_option,
    opened,
    require_store,
    store_argument,
)
from memories.foundation.clock import SystemClock
from memories.foundation.units import format_size

if TYPE_CHECKING:
    from memories.core.explain import Explanation


@click.command()
@store_argument
@click.argument("prefix", default="")
@click.option("-l", "--long", "as_table", is_flag=True, help="Show tier and size, too.")
@json_option
def ls(store: Path, glacier: str | None, prefix: str, as_table: bool, as_json: bool) -> None:
    """List the keys of STORE that start with PREFIX, in order.

    Each line is one key, with unprintable characters escaped. With --json each line is an object
    with key, tier, size in bytes, version and metadata. Keys that are only in the RAM of the
    process that has the store open are not listed, and their number is given on the standard error.
    """
    from memories.errors import KeyNotFoundError

    if not (as_table or as_json or glacier):
        for key in _keys(store, prefix):
            click.echo(escape(key))
        _warn_of_ram(store)
        return
    with opened(store, glacier) as manager:
        for key in manager.scan(prefix):
            if not (as_table or as_json):
                click.echo(escape(key))
                continue
            try:
                found = manager.explain(key)
            except KeyNotFoundError:
                continue  # The writer has removed it since it was listed.
            _print(found, as_json)
    _warn_of_ram(store)


def _warn_of_ram(store: Path) -> None:
    writer = writer_of(store)
    if writer is not None and writer.unwritten:
        click.echo(
            f"{writer.unwritten:,} values of the store are only in the RAM of pid {writer.pid}",
            err=True,
        )


def _keys(store: Path, prefix: str) -> Iterator[str]:
    """Yield the keys from the index of the log.

    This opens no manager and so imports no NumPy before the first line.
    """
    from memories.backends.disk import DiskBackend

    require_store(store)
    now = SystemClock().wall()
    key = configured_key()
    with closing(DiskBackend(store / "cold", read_only=True, encryption=key)) as journal:
        for record in journal.scan(prefix):
            ends = record.terms.expires_at
            if ends is None or ends > now:
                yield record.key


def _print(found: Explanation, as_json: bool) -> None:
    if as_json:
        print_json(facts(found))
    else:
        click.echo(f"{found.tier:<8}{format_size(found.size):>10}  {escape(found.key)}")


def facts(found: Explanation) -> dict[str, Any]:
    """Return the properties of a key as plain data for JSON."""
    return {
        "key": found.key,
        "tier": str(found.tier),
        "size": found.size,
        "version": found.version,
        "metadata": jsonable(found.metadata),
    }
