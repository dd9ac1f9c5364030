"""The directory of a store, held open, so that a move, an unmount or a replacement is noticed.

Every path of a store begins with it. Where a file is missing, `require` says whether only that file
has gone, or the whole directory.
"""

from __future__ import annotations

import os
from pathlib import Path

from memories.backends.disk.files import Files
from memories.errors import StorageError


class StoreDirectory:
    """One directory, and whether it still lies at its path."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        status = os.fstat(self.descriptor)  # While it is open, its inode number is not reused.
        self._identity = status.st_dev, status.st_ino

    def require(self) -> None:
        """Raise StorageError unless the directory is where it was; costs one system call."""
        try:
            status = self._root.stat()
        except OSError as error:
            raise StorageError(
                f"the store in {self._root} cannot be reached: {error.strerror}; was it moved, "
                "removed or unmounted? bring it back: nothing that lay in it is given up"
            ) from error
        if (status.st_dev, status.st_ino) != self._identity:
            raise StorageError(
                f"another directory lies at {self._root} than the one that was opened; bring that "
                "one back, or close this store and open the new one"
            )

    def discard(self, files: Files, path: Path) -> None:
        """Unlink a file that nothing names, unless another store lies here now, whose it would be.

        What stays is removed at the next opening.
        """
        try:
            self.require()
        except StorageError:
            return
        files.unlink(path)

    def free_bytes(self) -> int:
        """Return the bytes that this user may still write to the file system it is on."""
        status = os.fstatvfs(self.descriptor)
        return status.f_bavail * status.f_frsize

    def close(self) -> None:
        """Close the directory."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        # A store without `close`, or one that could not be opened, must not keep a disk mounted.
        if hasattr(self, "descriptor"):
            self.close()
