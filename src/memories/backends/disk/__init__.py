"""The cold tier's medium: a directory on a local disk (docs/format.md, "Cold log")."""

from memories.backends.disk.private import PrivateDirectory, private_directory, sweep
from memories.backends.disk.store import DiskBackend

__all__ = ["DiskBackend", "PrivateDirectory", "private_directory", "sweep"]
