"""`memories completion`: the lines that teach a shell to complete this command."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete commands, options and files.

    For bash: eval "$(memories completion bash)" in ~/.bashrc.
    """
    from memories.cli.app import app

    kind = get_completion_class(shell)
    assert kind is not None, "click knows the shells that the argument allows"
    click.echo(kind(app, {}, "memories", "_MEMORIES_COMPLETE").source())
