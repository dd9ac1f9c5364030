"""Optional packages, in one idiom: import at use, and say which extra brings what is missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from memories.errors import MemoriesError


class MissingPackageError(MemoriesError, ImportError):
    """A feature was asked for whose optional package is not installed."""


class BrokenPackageError(MemoriesError, ImportError):
    """A package that is installed could not be imported: it is broken, or memory was short."""


def require(module: str, *, extra: str) -> ModuleType:
    """Import `module`, or raise `MissingPackageError` naming the extra that brings it.

    Raises:
        MissingPackageError: it is not installed.
        BrokenPackageError: it is, and failed to be imported.
    """
    return load(module, f"{module} is not installed; run: pip install 'tiered-memories[{extra}]'")


def package(name: str) -> ModuleType:
    """Return the package that a stored value needs, importing it.

    Raises:
        MissingPackageError: it is not installed here.
        BrokenPackageError: it is, and failed to be imported.
    """
    root = name.partition(".")[0]
    missing = f"the stored value needs {root}, which is not installed here; run: pip install {root}"
    return load(name, missing)


def load(module: str, missing: str) -> ModuleType:
    """Import `module`; where it is not installed, raise `MissingPackageError(missing)`.

    Raises:
        MissingPackageError: it is not installed.
        BrokenPackageError: it is, and failed to be imported.
    """
    try:
        return importlib.import_module(module)
    except MemoryError:
        raise
    except Exception as error:  # A `SystemError`, say, where an extension found no memory.
        if isinstance(error, ImportError) and is_missing(error, module):
            raise MissingPackageError(missing) from error
        raise BrokenPackageError(
            f"{module} is installed and cannot be imported: {error}. If memory was short, try "
            "again when there is more; else reinstall it"
        ) from error


def is_missing(error: ImportError, module: str) -> bool:
    """Return whether an import of `module` failed because it, or a package around it, is absent.

    Nothing else says so: a library that found no memory to be mapped into is an `ImportError`, and
    what a package that is there cannot find within itself is a `ModuleNotFoundError`.
    """
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    return name is not None and f"{module}.".startswith(f"{name}.")
