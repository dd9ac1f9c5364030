"""`memories config`: shows the options that a manager would have here, and their origins."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from typing import Any

import click

from memories.cli.output import escape, print_json
from memories.cli.store import json_option


@click.command()
@json_option
def config(as_json: bool) -> None:
    """Show each option of a manager and where its value comes from.

    An argument in the program has priority over all of them; then come the environment
    (MEMORIES_...), the project's file (memories.toml, or [tool.memories] in pyproject.toml, from
    the current directory upwards), the user's file and the default.
    """
    from memories import MemoryManager
    from memories.options.config_sources import project_file, user_file
    from memories.options.configured_constructor import effective_options

    options = effective_options(MemoryManager.__init__)
    if as_json:
        rows = {one.name: {"value": _plain(one.value), "origin": one.origin} for one in options}
        print_json({"options": rows, "project": _text(project_file()), "user": _text(user_file())})
        return
    for one in options:
        value = _plain(one.value)
        click.echo(f"{one.name:<24}{escape(repr(value)):<16}  {escape(one.origin)}")
    click.echo(
        f"project file: {_text(project_file()) or 'none'}; "
        f"user file: {_text(user_file()) or 'none'}",
        err=True,
    )


def _text(path: Any) -> str | None:
    return None if path is None else str(path)


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
