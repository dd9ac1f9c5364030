"""Optional packages, in one idiom: import at use, and say which extra brings what is missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from memories.errors import MemoriesError


class MissingPackageError(MemoriesError, ImportError):
    """A feature was asked for whose optional package is not installed."""


def require(module: str, *, extra: str) -> ModuleType:
    """Import `module`, or raise `MissingPackageError` naming the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"{module} is not installed; run: pip install 'tiered-memories[{extra}]'"
        ) from error
