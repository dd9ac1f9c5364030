"""Every backend keeps the one contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from memories.backends.base import Backend
from memories.backends.disk import DiskBackend
from memories.backends.memory import MemoryBackend
from memories.sealing.blob import sealed_length
from memories.sealing.master_key import EncryptionKey, MasterSecret
from memories.testing.backends import BackendTests


class TestMemory(BackendTests):
    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        backend = MemoryBackend()
        yield backend
        backend.close()


class DiskTests(BackendTests):
    durable = True
    options: dict[str, object] = {}

    @pytest.fixture
    def backend(self, tmp_path: Path) -> Iterator[Backend]:
        backend = DiskBackend(tmp_path / "store", **self.options)
        yield backend
        backend.close()

    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Callable[[Backend], Backend]:
        def again(backend: Backend) -> Backend:
            backend.close()
            return DiskBackend(tmp_path / "store", **self.options)

        return again


class TestDisk(DiskTests):
    pass


class TestDiskFull(DiskTests):
    options = {"durability": "full"}


class TestDiskWithoutMmap(DiskTests):
    options = {"mmap": False}


class TestDiskEncrypted(DiskTests):
    @pytest.fixture(autouse=True)
    def key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("A_KEY", MasterSecret.new("a").text)
        self.options = {"encryption": EncryptionKey.from_env("A_KEY")}

    def stored(self, size: int) -> int:
        return sealed_length(size)
