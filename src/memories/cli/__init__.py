"""The command line, `memories`.

Not a second face of the library: each command opens a manager and prints what it says. What was
asked for goes to the standard output, words about it to the standard error, and the exit code says
how it went.
"""

from __future__ import annotations


def main() -> None:
    """Run the command that the program's arguments name, and exit."""
    from memories.cli.app import app

    app(prog_name="memories")
