"""The cold tier's medium: a directory on a local disk (docs/format.md, "Cold log")."""

from memories.backends.disk.backend import DiskBackend
from memories.backends.disk.temp_directory import (
    TempDirectory,
    new_temp_directory,
    sweep_temp_directories,
)

__all__ = ["DiskBackend", "TempDirectory", "new_temp_directory", "sweep_temp_directories"]
