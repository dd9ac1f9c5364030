"""Imports optional packages at their first use, with an error that names what to install.

This package is on no index yet, so that an extra of it can be installed in a clone only. What an
extra consists of can be installed everywhere, and the metadata of this package says what that is.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType

from memories.errors import MemoriesError

DISTRIBUTION = "tiered-memories"


class MissingPackageError(MemoriesError, ImportError):
    """A feature needs an optional package that is not installed."""


class BrokenPackageError(MemoriesError, ImportError):
    """A package that is installed could not be imported: it is broken, or memory was short."""


def require(module: str, *, extra: str) -> ModuleType:
    """Import `module`, which the extra `extra` of this package installs.

    Raises:
        MissingPackageError: it is not installed.
        BrokenPackageError: it is installed, but its import failed.
    """
    return load(module, lambda: f"{module} is not installed; run: {install_command(module, extra)}")


def install_command(module: str, extra: str) -> str:
    """Return the command that installs the packages of an extra, `module` among them."""
    from importlib.metadata import PackageNotFoundError, requires

    try:
        needed = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        needed = []  # The sources are used without having been installed.
    found = []
    for one in needed:
        requirement, _, condition = one.partition(";")
        if f"extra == '{extra}'" in condition.replace('"', "'"):
            found.append(requirement.strip())
    found = [one for one in found if not one.startswith(DISTRIBUTION)]
    return f"pip install {' '.join(map(repr, found)) or module.partition('.')[0]}"


def package(name: str) -> ModuleType:
    """Return the package that a stored value needs, importing it.

    Raises:
        MissingPackageError: it is not installed here.
        BrokenPackageError: it is installed, but its import failed.
    """
    root = name.partition(".")[0]
    return load(
        name,
        lambda: (
            f"the stored value needs {root}, which is not installed here; run: pip install {root}"
        ),
    )


def load(module: str, missing: Callable[[], str]) -> ModuleType:
    """Import `module`; where it is not installed, raise `MissingPackageError(missing())`.

    Raises:
        MissingPackageError: it is not installed.
        BrokenPackageError: it is installed, but its import failed.
    """
    try:
        return importlib.import_module(module)
    except MemoryError:
        raise
    except Exception as error:  # For example a `SystemError` of an extension that had no memory.
        if isinstance(error, ImportError) and is_missing(error, module):
            raise MissingPackageError(missing()) from error
        raise BrokenPackageError(
            f"{module} is installed but cannot be imported: {error}; if memory was short, try "
            "again when there is more, otherwise reinstall it"
        ) from error


def is_missing(error: ImportError, module: str) -> bool:
    """Return whether an import of `module` failed because it, or a package around it, is absent.

    The type of the error is not enough: a library that had no memory to be mapped raises
    `ImportError`, and a package that lacks one of its own modules raises `ModuleNotFoundError`.
    """
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    return name is not None and f"{module}.".startswith(f"{name}.")
