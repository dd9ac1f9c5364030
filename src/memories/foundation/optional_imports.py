"""Imports optional packages at their first use, with an error that names what to install.

Stored data choose which of these packages are imported. So a package that is not imported yet is
taken from where packages are installed, and never from the directory of the script or from the
current one, where `jax.py` may be the file of another user.

This package is on no index yet, so that an extra of it can be installed in a clone only. What an
extra consists of can be installed everywhere, and the metadata of this package says what that is.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.machinery
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from memories.errors import MemoriesError

DISTRIBUTION = "tiered-memories"
Library = TypeVar("Library", ctypes.CDLL, ctypes.PyDLL)


class MissingPackageError(MemoriesError, ImportError):
    """A feature needs an optional package that is not installed."""


class BrokenPackageError(MemoriesError, ImportError):
    """A package is there, but was not imported.

    It is broken, memory was short, or it lies in the current directory or beside the script, and
    only stored data need it.
    """


def require(module: str, *, extra: str) -> ModuleType:
    """Import `module`, which the extra `extra` of this package installs.

    Raises:
        MissingPackageError: it is not installed.
        BrokenPackageError: it is installed, but its import failed.
    """
    return load(module, lambda: f"{module} is not installed; run: {install_command(module, extra)}")


def require_library(module: str, kind: type[Library], *, extra: str) -> Library:
    """Load the shared library that is the extension `module`, for its C functions.

    Nothing of the package around it is executed, which may take a hundred times as long.

    Raises:
        MissingPackageError: it is not installed.
        BrokenPackageError: it is installed, but cannot be loaded.
    """
    root = module.partition(".")[0]
    if root not in sys.modules:
        _require_installed(root)
    try:
        around = importlib.util.find_spec(root)
        places = around and around.submodule_search_locations
        found = importlib.machinery.PathFinder.find_spec(module, places) if places else None
    except Exception:  # Whatever a finder raises, the import raises again.
        found = None
    if found is None or not found.has_location:
        require(module, extra=extra)  # It raises, or finds the module in its own way.
        found = sys.modules[module].__spec__
    try:
        return kind(str(found and found.origin))
    except OSError as error:
        raise _broken(module, error) from error


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
        BrokenPackageError: its import failed, or it lies beside the script or in the current
            directory.
    """
    root = module.partition(".")[0]
    if root not in sys.modules:
        _require_installed(root)
    try:
        return importlib.import_module(module)
    except MemoryError:
        raise
    except Exception as error:  # For example a `SystemError` of an extension that had no memory.
        if isinstance(error, ImportError) and is_missing(error, module):
            raise MissingPackageError(missing()) from error
        raise _broken(module, error) from error


def _broken(module: str, error: Exception) -> BrokenPackageError:
    return BrokenPackageError(
        f"{module} is installed but cannot be imported: {error}; if memory was short, try "
        "again when there is more, otherwise reinstall it"
    )


def _require_installed(root: str) -> None:
    """Raise BrokenPackageError if `import root` would run a file that lies where users work.

    The program can still choose such a file: what it has imported itself is used.
    """
    try:
        found = importlib.util.find_spec(root)
    except Exception:  # Whatever a finder raises, the import itself raises again.
        return
    if found is None:
        return
    folders = {Path(place).resolve().parent for place in found.submodule_search_locations or ()}
    if found.has_location and found.origin and not folders:
        folders.add(Path(found.origin).resolve().parent)
    local = sorted(folders & _local_directories())
    if local:
        raise BrokenPackageError(
            f"{root} would be imported from {local[0]}, where packages are not installed, because "
            "stored data need it: if you trust it, import it in your program "
            "first; otherwise rename it, or work in another directory"
        )


def _local_directories() -> set[Path]:
    """Return the current directory and that of the script, unless packages are installed there."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    found = set() if script is None else {Path(script).resolve().parent}
    with contextlib.suppress(OSError):  # The current directory may have been removed.
        found.add(Path.cwd())
    installed = [*site.getsitepackages(), *sysconfig.get_paths().values()]
    return found - {Path(place).resolve() for place in installed}


def is_missing(error: ImportError, module: str) -> bool:
    """Return whether an import of `module` failed because it, or a package around it, is absent.

    The type of the error is not enough: a library that had no memory to be mapped raises
    `ImportError`, and a package that lacks one of its own modules raises `ModuleNotFoundError`.
    """
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    return name is not None and f"{module}.".startswith(f"{name}.")
