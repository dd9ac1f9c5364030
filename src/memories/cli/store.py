"""Opening a store that somebody else may be writing to, without changing anything in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from memories.errors import StorageError

if TYPE_CHECKING:
    from memories import MemoryManager

Command = TypeVar("Command", bound=Callable[..., Any])


def store_argument(command: Command) -> Command:
    """Give a command the argument STORE and the option --glacier."""
    command = click.option(
        "--glacier",
        metavar="URL",
        help="Where its glacier tier lies, if not in the directory itself.",
    )(command)
    return click.argument("store", type=click.Path(path_type=Path))(command)


def json_option(command: Command) -> Command:
    """Give a command the option --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


@contextmanager
def opened(
    store: Path, glacier: str | None = None, *, read_only: bool = True
) -> Iterator[MemoryManager]:
    """Open the store, for reading unless told otherwise.

    Raises:
        StorageError: there is no store at that place.
        StoreLockedError: it is to be changed, and somebody else is its writer.
    """
    from memories import MemoryManager

    if not (store / "cold").is_dir():
        raise StorageError(
            f"{str(store)!r} holds no store; give the directory that was the manager's storage_path"
        )
    has_glacier = glacier is not None or (store / "glacier").is_dir()
    with MemoryManager(
        storage_path=store,
        glacier_memory_enabled=has_glacier,
        glacier_url=glacier,
        read_only=read_only,
    ) as manager:
        yield manager
