"""Damages what is encrypted: stores, snapshots, archives, their maps and keys, and registers.

Who has not the key can alter bytes, and move, cut and exchange them.
"""

from __future__ import annotations

from pathlib import Path

from tests.torture.fuzz import files, nodes

from memories import EncryptionKey, MemoryManager
from memories.sealing.master_key import create_file


def master_key(folder: Path) -> EncryptionKey:
    """Return the one master key of the target whose files are in `folder`."""
    path = folder / "key"
    if not path.exists():
        create_file(path, "fuzz")
    return EncryptionKey.from_file(path)


class SealedCold(files.StoreFiles):
    """The files of an encrypted store."""

    glacier = False

    def manager(self, folder: Path) -> MemoryManager:
        """Open the store with its key."""
        return MemoryManager(
            "20 MB", "20 MB", "200 MB", self.glacier, storage_path=folder / "store",
            migration=False, encryption=master_key(folder.parent),
            glacier_url=str(folder / "bucket") if self.glacier else None,
        )  # fmt: skip


class SealedSnapshot(files.Snapshot, SealedCold):
    """An encrypted snapshot."""


class SealedBucket(files.Bucket, SealedCold):
    """The objects of an encrypted archive."""

    glacier = True
    manager = SealedCold.manager


class SealedMap(files.Map, SealedCold):
    """The map of an encrypted archive."""

    glacier = True
    manager = SealedCold.manager


class SealedKeys(SealedCold):
    """The data keys of a store and of its archive."""

    tier = "glacier"
    glacier = True

    def chosen(self, path: Path) -> bool:
        """Choose the files of keys."""
        return path.parent.name == "keys"


class SealedRegisters(nodes.Registers):
    """The registers of an encrypted namespace, and that of its key."""

    def prepare(self, folder: Path) -> None:
        """Make the key, and what is to be damaged."""
        self.key = master_key(folder)
        super().prepare(folder)


TARGETS = {
    "sealed-cold": SealedCold,
    "sealed-snapshot": SealedSnapshot,
    "sealed-bucket": SealedBucket,
    "sealed-map": SealedMap,
    "sealed-keys": SealedKeys,
    "sealed-register": SealedRegisters,
}
