"""The command line, `memories`.

Each command opens a manager and prints results. The requested data go to the standard output,
messages to the standard error, and the exit code reports success or the kind of failure.
"""

from __future__ import annotations


def main() -> None:
    """Run the command named by the program's arguments, and exit."""
    from memories.cli.app import app

    app(prog_name="memories")
