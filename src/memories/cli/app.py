"""The table of commands; only the command that is run is imported.

No module of the command line imports the engine or NumPy at load, so that help texts are fast.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import click

from memories._version import __version__
from memories.cli.exit_codes import CliFailure, failure_of
from memories.compiled import core
from memories.errors import MemoriesError


class Lazy(NamedTuple):
    """The module and the name of a command, and its line in the list of commands."""

    module: str
    name: str
    help: str


COMMANDS = {
    "adopt": Lazy("memories.cli.adopt", "adopt", "Show what an archive holds, and continue it."),
    "advise": Lazy("memories.cli.advise", "advise", "Show what larger tiers would gain."),
    "bench": Lazy("memories.cli.bench", "bench", "Measure the speed of this machine."),
    "check": Lazy("memories.cli.check", "check", "Verify every value of a store."),
    "cluster": Lazy("memories.cli.cluster", "cluster", "Run local nodes, and inspect any nodes."),
    "completion": Lazy(
        "memories.cli.completion", "completion", "Print the completion script of a shell."
    ),
    "config": Lazy("memories.cli.config", "config", "Show each option and where it comes from."),
    "dashboard": Lazy("memories.cli.dashboard", "dashboard", "Serve a live page about a store."),
    "demo": Lazy("memories.cli.demo", "demo", "Explore a real raster through the four tiers."),
    "doctor": Lazy("memories.cli.doctor", "doctor", "Find what is slow, missing or wrong."),
    "explain": Lazy("memories.cli.explain", "explain", "Explain why a key is where it is."),
    "get": Lazy("memories.cli.get", "get", "Print a value, or write it to a file."),
    "import": Lazy("memories.cli.importing", "importing", "Bring what another cache holds over."),
    "key": Lazy("memories.cli.key", "key", "Manage the keys that sign, and those that encrypt."),
    "ls": Lazy("memories.cli.ls", "ls", "List the keys of a store."),
    "move": Lazy("memories.cli.move", "move", "Move a value to another tier."),
    "pin": Lazy("memories.cli.move", "pin", "Forbid moving and evicting a key."),
    "put": Lazy("memories.cli.put", "put", "Store a file, or the standard input."),
    "report": Lazy("memories.cli.report", "report", "Write one page about a store."),
    "rm": Lazy("memories.cli.rm", "rm", "Remove keys."),
    "simulate": Lazy("memories.cli.simulate", "simulate", "Replay a trace through the policies."),
    "snapshot": Lazy(
        "memories.cli.snapshot", "snapshot", "Create, verify and inspect snapshot files."
    ),
    "stat": Lazy("memories.cli.stat", "stat", "Show what a store holds, or one of its keys."),
    "top": Lazy("memories.cli.top", "top", "Watch a store live, in the terminal."),
    "upgrade": Lazy(
        "memories.cli.upgrade", "upgrade", "Bring a store to the formats of this release."
    ),
}


class LazyGroup(click.Group):
    """A group that imports a command when it is run, and reports our errors in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands that this installation has."""
        del ctx
        return [name for name, lazy in COMMANDS.items() if find_spec(lazy.module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None if the name is unknown."""
        if cmd_name not in self.list_commands(ctx):
            return None
        lazy = COMMANDS[cmd_name]
        command = getattr(import_module(lazy.module), lazy.name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any."""
        rows = [(name, COMMANDS[name].help) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error becomes a message and an exit code."""
        try:
            return super().invoke(ctx)
        except MemoriesError as error:
            raise failure_of(error) from error
        except KeyboardInterrupt:
            raise CliFailure("interrupted", exit_code=130) from None


def _show_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    del parameter
    if value and not ctx.resilient_parsing:
        click.echo(f"memories {__version__}, core {core()}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 fine, 1 failed, 2 wrong usage, 3 no such key, 4 damaged data, "
    "5 unavailable.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version, and how the core runs, and exit.",
)
def app() -> None:
    """Keep Python data where it is fastest to use and cheapest to hold.

    A STORE is the directory that was given to a manager as storage_path; it may be open in a
    running process, which is not affected.
    """
