"""`memories dashboard`: serves the live page about a store, which a process may have open."""

from __future__ import annotations

from pathlib import Path

import click

from memories.cli.output import print_json
from memories.cli.store import json_option, store_argument
from memories.cli.telemetry_source import FileSource


@click.command()
@store_argument
@click.option(
    "--port",
    default=0,
    show_default=True,
    type=click.IntRange(0, 65_535),
    help="0 chooses a free port.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--token", envvar="MEMORIES_DASHBOARD_TOKEN", help="Required from other machines.")
@click.option("--name", "names", multiple=True, help="A host name under which it is reached.")
@json_option
def dashboard(
    store: Path,
    glacier: str | None,
    port: int,
    host: str,
    token: str | None,
    names: tuple[str, ...],
    as_json: bool,
) -> None:
    """Serve a live page about STORE until interrupted; print its address.

    It changes nothing. To move values, use a dashboard of the program itself:
    manager.dashboard(token=...).
    """
    from memories.observe.dashboard import serve

    source = FileSource(store, glacier)
    with serve(source, host=host, port=port, token=token, hosts=names) as served:
        if as_json:
            print_json({"store": str(store), "url": served.url})
        else:
            click.echo(served.url)
        click.echo("Ctrl-C ends it", err=True)
        served.wait()
