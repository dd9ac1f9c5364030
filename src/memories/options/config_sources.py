"""Reads options from the environment and from configuration files, each with its origin.

Only names are checked here; values are checked where arguments are. The nearest source wins:
`MEMORIES_*` in the environment, then the file of the project, then the file of the user. Files may
not contain secrets, and a file that belongs to another user is not read.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from memories.errors import InvalidOptionError
from memories.foundation.logging import logger
from memories.foundation.regular_file import read_regular
from memories.foundation.user_directories import config_directory
from memories.foundation.wrong_calls import nearest

PREFIX = "MEMORIES_"
MAX_BYTES = 1 << 20  # Of a file; a larger one was not written for this.
PROJECT_FILE = "memories.toml"
USER_FILE = "config.toml"

# Variables with this prefix that are not options of a manager.
OTHER_VARIABLES = frozenset(
    {"MEMORIES_DASHBOARD_TOKEN", "MEMORIES_INTERPRETED", "MEMORIES_KEY_FILE"}
)
# They hold secrets, decide what is trusted, or are for one opening only: no file may set them.
ARGUMENT_ONLY = frozenset({"node_options", "storage_options", "takeover", "trusted_keys"})
TABLES = frozenset({"compression", "eviction_policy", "migration"})
TEXTS = frozenset(
    {"storage_path", "glacier_url", "hot_device", "durability", "on_full", "encryption"}
)


class FoundOption(NamedTuple):
    """The value of an option, and the source that sets it."""

    value: Any
    origin: str


def read_config(
    known: Collection[str],
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    user_directory: Path | None = None,
) -> dict[str, FoundOption]:
    """Return the options that the environment and the files set.

    Args:
        known: The valid names.
        environment: The variables; None for those of the process.
        directory: Where the upward search for the file of the project begins; None for the current
            directory.
        user_directory: The directory of the user's file; None for that of the platform.

    Raises:
        InvalidOptionError: a name is unknown, or a file is not TOML.
    """
    environment = os.environ if environment is None else environment
    found: dict[str, FoundOption] = {}
    files = (_user_file(user_directory), _project_file(directory))
    for path, table in filter(None, files):
        for name, value in table.items():
            _check_name(name, known, f"{path} sets {_shown(name)}")
            _merge(found, name, _anchored(name, value, path.parent), str(path))
    for variable, name, value in _variables(environment, known):
        _merge(found, name, value, variable)
    return found


def read_text_option(name: str) -> str | None:
    """Return what the nearest source sets for an option that is a text, without a manager."""
    value = os.environ.get(PREFIX + name.upper())
    for path, table in filter(None, (_project_file(None), _user_file(None))):
        if value is None and name in table:
            value = _anchored(name, table[name], path.parent)
    return value


def project_file(directory: Path | None = None) -> Path | None:
    """Return the project's configuration file, looking from `directory` upwards."""
    found = _project_file(directory)
    return found[0] if found else None


def user_file(user_directory: Path | None = None) -> Path | None:
    """Return the path of the user's file, which may not exist; None where there is no home."""
    directory = config_directory() if user_directory is None else user_directory
    return None if directory is None else directory / USER_FILE


def _merge(found: dict[str, FoundOption], name: str, value: Any, origin: str) -> None:
    """Override the value of farther sources by `value`; tables are merged item by item."""
    before = found.get(name)
    if isinstance(value, dict) and before is not None and isinstance(before.value, dict):
        value = {**before.value, **value}
        origin = f"{before.origin}, {origin}" if origin not in before.origin else before.origin
    found[name] = FoundOption(value, origin)


def _anchored(name: str, value: Any, folder: Path) -> Any:
    """Return a path relative to the file that sets it, not to the current directory."""
    if name == "encryption" and isinstance(value, str) and value.startswith("file:"):
        path = value.removeprefix("file:")
        return value if path.startswith("~") else f"file:{folder / path}"
    is_path = name == "storage_path" or (name == "glacier_url" and "://" not in str(value))
    if not is_path or not isinstance(value, str) or value.startswith("~"):
        return value
    return str(folder / value)


def _shown(name: str) -> str:
    """Return a name as a message shows it: a file may hold any characters."""
    return name[:200] if name.isprintable() else repr(name[:200])


def _check_name(name: str, known: Collection[str], what: str) -> None:
    if name in ARGUMENT_ONLY:
        raise InvalidOptionError(
            f"{what}, which only an argument may set: credentials come from the environment of "
            "their own tools (AWS_..., GOOGLE_..., AZURE_...), and trust and a takeover are given "
            "in the program"
        )
    if name not in known:
        raise InvalidOptionError(f"{what}, which is not an option{nearest(name, known)}")


def _variables(
    environment: Mapping[str, str], known: Collection[str]
) -> Iterator[tuple[str, str, Any]]:
    """Yield variable, option and value; `MEMORIES_COMPRESSION__COLD` is one item of a table."""
    for variable in sorted(environment):
        if not variable.startswith(PREFIX) or variable in OTHER_VARIABLES:
            continue
        name, _, item = variable.removeprefix(PREFIX).lower().partition("__")
        _check_name(name, known, f"the environment variable {_shown(variable)} sets {_shown(name)}")
        if item and name not in TABLES:
            raise InvalidOptionError(
                f"the environment variable {_shown(variable)} sets an item of {_shown(name)}, "
                "which is not a table"
            )
        text = environment[variable]
        value = text if name in TEXTS else _parsed(text)
        yield variable, name, {item: value} if item else value


def _parsed(text: str) -> Any:
    """Return the TOML number, boolean, list or table in `text`, or the text itself."""
    import tomllib

    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except (ValueError, RecursionError):
        lowered = text.strip().lower()
        return lowered == "true" if lowered in ("true", "false") else text
    return value if isinstance(value, (bool, int, float, list, dict)) else text


def _user_file(user_directory: Path | None) -> tuple[Path, dict[str, Any]] | None:
    path = user_file(user_directory)
    text = None if path is None else _read(path)
    return None if path is None or text is None else (path, _table(path, text))


def _project_file(directory: Path | None) -> tuple[Path, dict[str, Any]] | None:
    """Return the nearest project file, from `directory` upwards, and what it sets."""
    try:
        start = Path.cwd() if directory is None else directory.absolute()
    except FileNotFoundError:
        return None  # The current directory was removed, so its parents are unknown.
    for folder in (start, *start.parents):
        path = folder / PROJECT_FILE
        if (text := _read(path)) is not None:
            return path, _table(path, text)
        path = folder / "pyproject.toml"
        text = _read(path)
        # Most projects do not configure this package: their files need not be parsed.
        if text is not None and b"memories" in text:
            tool = _table(path, text).get("tool")
            options = tool.get("memories") if isinstance(tool, dict) else None
            if isinstance(options, dict):
                return path, options
    return None


def _read(path: Path) -> bytes | None:
    """Return the bytes of a file, None if it cannot be read or belongs to another user (not root).

    In a directory that many users can write to, one user could redirect the data of another.
    """
    try:
        found = read_regular(path, limit=MAX_BYTES, links=True)
    except OSError:
        return None  # It is absent, no file, too large for one, or not readable by this user.
    if found.is_trusted:
        return found.data
    logger.warning("%s belongs to another user and is not read", path)
    return None


def _table(path: Path, text: bytes) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # Also for a number of thousands of digits.
        raise InvalidOptionError(f"{path} is not TOML: {error}") from error
