"""Opens the store of a command, read-only unless the command changes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from memories.errors import StorageError

if TYPE_CHECKING:
    from memories import MemoryManager
    from memories.sealing.master_key import EncryptionKey

Command = TypeVar("Command", bound=Callable[..., Any])


def store_argument(command: Command) -> Command:
    """Give a command the argument STORE and the option --glacier."""
    command = click.option(
        "--glacier",
        metavar="URL",
        help="The URL of its glacier tier, if that is not in the directory.",
    )(command)
    return click.argument("store", type=click.Path(path_type=Path))(command)


def json_option(command: Command) -> Command:
    """Give a command the option --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def require_store(store: Path) -> None:
    """Raise StorageError if a directory does not contain a store."""
    if not (store / "cold").is_dir():
        raise StorageError(
            f"{str(store)!r} does not contain a store: give the directory that was the "
            "manager's storage_path"
        )


@contextmanager
def opened(
    store: Path, glacier: str | None = None, *, read_only: bool = True, create: bool = False
) -> Iterator[MemoryManager]:
    """Open the store, by default for reading; with `create`, make it if it does not exist.

    Raises:
        StorageError: the directory does not contain a store.
        StoreLockedError: it is opened for writing, and has another writer.
    """
    from memories import MemoryManager

    if not create:
        require_store(store)
    options: dict[str, Any] = (
        {} if read_only else {"migration": False}
    )  # A command moves only the named values.
    with MemoryManager(
        storage_path=store, read_only=read_only, **_glacier_of(store, glacier), **options
    ) as manager:
        yield manager


def configured_key() -> EncryptionKey | None:
    """Return the key of encrypted stores that the environment or a file names.

    Raises:
        InvalidOptionError: it is not valid.
    """
    from memories.options.config_sources import read_text_option
    from memories.sealing.master_key import EncryptionKey

    return EncryptionKey.parse(read_text_option("encryption"))


def _glacier_of(store: Path, url: str | None) -> dict[str, Any]:
    """Return the options for the glacier tier of `store`.

    Without a URL it is in the directory, or where the configuration of this store says.
    """
    if url is None and not (store / "glacier").is_dir():
        from memories import MemoryManager
        from memories.options.configured_constructor import effective_options

        configured = {one.name: one.value for one in effective_options(MemoryManager.__init__)}
        path = configured["storage_path"]
        if path is not None and Path(path).expanduser().resolve() == store.resolve():
            return {}
        return {"glacier_memory_enabled": False, "glacier_url": None}
    return {"glacier_memory_enabled": True, "glacier_url": url}
