"""The cold tier's medium: a directory on a local disk (docs/format.md, "Cold log")."""

from memories.backends.disk.backend import DiskBackend
from memories.backends.disk.temp_directory import PrivateDirectory, private_directory, sweep

__all__ = ["DiskBackend", "PrivateDirectory", "private_directory", "sweep"]
