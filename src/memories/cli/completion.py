"""`memories completion`: prints the completion script of a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from memories.cli.output import print_json
from memories.cli.store import json_option


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_option
def completion(shell: str, as_json: bool) -> None:
    """Print the script with which SHELL completes commands, options and files.

    For bash: eval "$(memories completion bash)" in ~/.bashrc.
    """
    from memories.cli.app import app

    kind = get_completion_class(shell)
    assert kind is not None, "click knows the shells that the argument allows"
    source = kind(app, {}, "memories", "_MEMORIES_COMPLETE").source()
    if as_json:
        print_json({"shell": shell, "source": source})
    else:
        click.echo(source)
