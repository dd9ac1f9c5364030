"""The exit codes of the commands, and the error that ends a command with a message."""

from __future__ import annotations

from typing import IO, Any

import click

from memories.errors import (
    ArchivedError,
    CorruptDataError,
    InvalidKeyError,
    InvalidOptionError,
    KeyNotFoundError,
    MemoriesError,
    StoreLockedError,
    UnavailableError,
)

FAILED, USAGE, NOT_FOUND, DAMAGED, UNAVAILABLE = 1, 2, 3, 4, 5

EXIT_CODES: dict[type[MemoriesError], int] = {
    InvalidOptionError: USAGE,
    InvalidKeyError: USAGE,
    KeyNotFoundError: NOT_FOUND,
    CorruptDataError: DAMAGED,
    ArchivedError: UNAVAILABLE,
    StoreLockedError: UNAVAILABLE,
    UnavailableError: UNAVAILABLE,
}


class CliFailure(click.ClickException):
    """Ends the command with a message and `exit_code`."""

    def __init__(self, message: str, *, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the message to the standard error."""
        click.echo(f"memories: {self.format_message()}", file=file, err=True)


def failure_of(error: MemoriesError) -> CliFailure:
    """Return the failure with the message and the exit code of `error`."""
    codes = (code for kind, code in EXIT_CODES.items() if isinstance(error, kind))
    return CliFailure(str(error), exit_code=next(codes, FAILED))
