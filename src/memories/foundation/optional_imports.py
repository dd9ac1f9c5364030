"""Imports optional packages at their first use, with an error that names the extra to install."""

from __future__ import annotations

import importlib
from types import ModuleType

from memories.errors import MemoriesError


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
    return load(module, f"{module} is not installed; run: pip install 'tiered-memories[{extra}]'")


def package(name: str) -> ModuleType:
    """Return the package that a stored value needs, importing it.

    Raises:
        MissingPackageError: it is not installed here.
        BrokenPackageError: it is installed, but its import failed.
    """
    root = name.partition(".")[0]
    missing = f"the stored value needs {root}, which is not installed here; run: pip install {root}"
    return load(name, missing)


def load(module: str, missing: str) -> ModuleType:
    """Import `module`; where it is not installed, raise `MissingPackageError(missing)`.

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
            raise MissingPackageError(missing) from error
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
