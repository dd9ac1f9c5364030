"""The table of commands, of which only the one that is run is imported.

Neither this file nor a command's own imports the engine or NumPy when it is loaded, so that a help
text costs what click costs.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import click

from memories._version import __version__
from memories.cli.exit_codes import CliFailure, failure_of
from memories.errors import MemoriesError


class Lazy(NamedTuple):
    """Where a command is, and the line that the list of commands shows for it."""

    module: str
    name: str
    help: str


COMMANDS = {
    "adopt": Lazy("memories.cli.adopt", "adopt", "Say what an archive holds, and go on with it."),
    "advise": Lazy("memories.cli.advise", "advise", "Say which sizes would serve a store best."),
    "bench": Lazy("memories.cli.bench", "bench", "Measure what this machine gives."),
    "check": Lazy("memories.cli.check", "check", "Verify every value of a store."),
    "cluster": Lazy("memories.cli.cluster", "cluster", "Run local nodes, and look at any nodes."),
    "completion": Lazy("memories.cli.completion", "completion", "Teach a shell to complete."),
    "config": Lazy("memories.cli.config", "config", "Show each option and where it comes from."),
    "dashboard": Lazy("memories.cli.dashboard", "dashboard", "Serve a live page about a store."),
    "demo": Lazy("memories.cli.demo", "demo", "Explore a real raster through the four tiers."),
    "doctor": Lazy("memories.cli.doctor", "doctor", "Look for what is slow, missing or wrong."),
    "explain": Lazy("memories.cli.explain", "explain", "Say why a key is where it is."),
    "get": Lazy("memories.cli.get", "get", "Print a value, or write it to a file."),
    "key": Lazy("memories.cli.key", "key", "Show, export and import signing keys."),
    "ls": Lazy("memories.cli.ls", "ls", "List the keys of a store."),
    "move": Lazy("memories.cli.move", "move", "Move a value to another tier."),
    "pin": Lazy("memories.cli.move", "pin", "Forbid moving and evicting a key."),
    "put": Lazy("memories.cli.put", "put", "Store a file, or what is piped in."),
    "report": Lazy("memories.cli.report", "report", "Write one page about a store."),
    "rm": Lazy("memories.cli.rm", "rm", "Remove keys."),
    "simulate": Lazy("memories.cli.simulate", "simulate", "Replay a trace through the policies."),
    "snapshot": Lazy(
        "memories.cli.snapshot", "snapshot", "Make, verify and look into snapshot files."
    ),
    "stat": Lazy("memories.cli.stat", "stat", "Show what a store holds, or one of its keys."),
    "top": Lazy("memories.cli.top", "top", "Watch a store live, in the terminal."),
}


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for, and says our errors in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands that this installation has."""
        del ctx
        return [name for name, lazy in COMMANDS.items() if find_spec(lazy.module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None if there is none of that name."""
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
        """Run the command; its errors become a line of words and an exit code."""
        try:
            return super().invoke(ctx)
        except MemoriesError as error:
            raise failure_of(error) from error
        except KeyboardInterrupt:
            raise CliFailure("interrupted", exit_code=130) from None


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 fine, 1 failed, 2 wrong usage, 3 no such key, 4 damaged data, "
    "5 unavailable.",
)
@click.version_option(__version__, message="memories %(version)s")
def app() -> None:
    """Keep Python data where it is fastest to use and cheapest to hold.

    A STORE is the directory that was given to a manager as storage_path; it may be open in a
    running process, which is not disturbed.
    """
