"""Files in the tiers are files by fsspec's own tests: plain ones, and blocks of others."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")

from fsspec.implementations.local import LocalFileSystem  # noqa: E402
from fsspec.tests.abstract import (  # noqa: E402
    AbstractCopyTests,
    AbstractFixtures,
    AbstractGetTests,
    AbstractOpenTests,
    AbstractPipeTests,
    AbstractPutTests,
)

from memories import ClosedError, InvalidOptionError, MemoryManager  # noqa: E402
from memories.fsspec import CachedFileSystem, MemoriesFileSystem, register  # noqa: E402

SIZES = ("8 MB", "8 MB", "64 MB")


@pytest.fixture(scope="module")
def manager() -> Iterator[MemoryManager]:
    with MemoryManager(*SIZES) as one:
        yield one


class PlainFixtures(AbstractFixtures):
    """Files that are values."""

    @pytest.fixture
    def fs(self, manager: MemoryManager) -> Any:
        return fsspec.filesystem("memories", manager=manager)

    @pytest.fixture
    def fs_path(self, tmpdir: Any) -> str:
        return str(tmpdir).strip("/")

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False


class CachedFixtures(AbstractFixtures):
    """Files of the disk, in blocks."""

    @pytest.fixture
    def fs(self, manager: MemoryManager) -> Any:
        behind = LocalFileSystem(auto_mkdir=True)
        return MemoriesFileSystem(fs=behind, manager=manager, block_size=3, prefix="blocks")

    @pytest.fixture
    def fs_path(self, tmpdir: Any) -> str:
        return str(tmpdir.mkdir("behind"))

    @pytest.fixture
    def fs_sanitize_path(self) -> Any:
        return LocalFileSystem._strip_protocol


class TestPlainCopy(AbstractCopyTests, PlainFixtures):
    pass


class TestPlainGet(AbstractGetTests, PlainFixtures):
    pass


class TestPlainPut(AbstractPutTests, PlainFixtures):
    pass


class TestPlainPipe(AbstractPipeTests, PlainFixtures):
    pass


class TestPlainOpen(AbstractOpenTests, PlainFixtures):
    pass


class TestCachedCopy(AbstractCopyTests, CachedFixtures):
    pass


class TestCachedGet(AbstractGetTests, CachedFixtures):
    pass


class TestCachedPut(AbstractPutTests, CachedFixtures):
    pass


class TestCachedPipe(AbstractPipeTests, CachedFixtures):
    pass


class TestCachedOpen(AbstractOpenTests, CachedFixtures):
    pass


def test_a_url_names_a_manager(manager: MemoryManager) -> None:
    """What takes a URL only, as most readers do, reads values of a manager."""
    register("mine", manager)
    manager.store("url/a.txt", b"hello")
    with fsspec.open("memories://mine/url/a.txt") as file:
        assert b"hello" == file.read()
    with fsspec.open("memories://mine/url/b.txt", "w") as file:
        file.write("written")
    assert b"written" == manager.retrieve("url/b.txt")
    fs, path = fsspec.url_to_fs("memories://mine/url")
    assert ["mine/url/a.txt", "mine/url/b.txt"] == fs.ls(path, detail=False)
    assert ["mine/url/a.txt"] == fs.glob("memories://mine/url/a*")
    with pytest.raises(InvalidOptionError, match="there is no manager of the name 'other'"):
        fsspec.open("memories://other/a.txt").open()
    with pytest.raises(InvalidOptionError, match="without a slash"):
        register("a/b", manager)


def test_a_file_says_its_size_and_times_without_being_read(manager: MemoryManager) -> None:
    """And changes its checksum with its content."""
    fs = MemoriesFileSystem(manager, "info")
    fs.pipe_file("a", b"12345")
    before = fs.info("a")
    assert (5, "file", "a") == (before["size"], before["type"], before["name"])
    assert fs.created("a") == fs.modified("a")
    fs.pipe_file("a", b"12345")
    assert before["ETag"] != fs.info("a")["ETag"]
    assert b"234" == fs.cat_file("a", 1, 4)
    assert b"45" == fs.cat_file("a", -2)
    assert b"4" == fs.cat_file("a", -2, -1)
    assert [b"12", b"5"] == fs.cat_ranges(["a", "a"], [0, 4], [2, 5])


@pytest.mark.parametrize("tier", ["hot", "cold"])
def test_files_are_written_at_once_or_not_at_all(manager: MemoryManager, tier: str) -> None:
    """A reader never sees half of a file; appending and exclusive modes are as everywhere."""
    fs = MemoriesFileSystem(manager, f"modes/{tier}", tier=tier)
    with fs.open("a", "wb", block_size=4) as file:
        file.write(b"0123456789")
        assert not fs.exists("a")
    with fs.open("a", "ab") as file:
        file.write(b"ab")
    assert b"0123456789ab" == fs.cat_file("a")
    with fs.open("a", "rb") as file:
        file.seek(4)
        assert b"45" == file.read(2)
        assert b"6789ab" == file.read()
    with fs.open("b", "xb") as file:
        file.write(b"1")
    with pytest.raises(FileExistsError):
        fs.open("b", "xb")
    with pytest.raises(FileExistsError):
        fs.pipe_file("b", b"2", mode="create")
    with fs.transaction, fs.open("c", "wb") as file:
        file.write(b"1")
    assert b"1" == fs.cat_file("c")


def test_a_file_is_moved_and_copied_without_being_read(manager: MemoryManager) -> None:
    """Its value gets another key; a file moved into a folder keeps its name."""
    fs = MemoriesFileSystem(manager, "moves")
    fs.pipe({"a": b"1", "x/b": b"2", "folder/c": b"3"})
    version = fs.info("a")["ETag"]
    fs.mv("a", "new/a")
    fs.mv("x/b", "folder")
    fs.cp("new/a", "copy")
    assert version != fs.info("copy")["ETag"]
    assert ["copy", "folder/b", "folder/c", "new/a"] == fs.find("")
    assert b"1" == fs.cat_file("new/a") == fs.cat_file("copy")
    with pytest.raises(FileNotFoundError):
        fs.mv("a", "d")
    with pytest.raises(FileNotFoundError):
        fs.cp_file("a", "d")


def test_what_is_absent_is_a_file_not_found(manager: MemoryManager) -> None:
    """The error that every reader of files catches."""
    fs = MemoriesFileSystem(manager, "absent")
    for call in (fs.info, fs.cat_file, fs.ls, fs.rm_file, fs.created, fs.open):
        with pytest.raises(FileNotFoundError):
            call("nothing")
    assert not fs.exists("nothing")
    fs.pipe_file("folder/a", b"1")
    with pytest.raises(OSError, match="not empty"):
        fs.rmdir("folder")


def test_a_closed_manager_is_not_an_empty_one() -> None:
    """ "Closed" must not look like "absent"."""
    with MemoryManager(*SIZES) as closing:
        fs = MemoriesFileSystem(closing)
        fs.pipe_file("a", b"1")
    for call in (fs.cat_file, fs.info, fs.exists):
        with pytest.raises(ClosedError):
            call("a")


def test_a_pickled_file_system_has_the_same_manager(manager: MemoryManager) -> None:
    """Dask pickles the file system with each task."""
    fs = MemoriesFileSystem(manager, "pickled")
    again = pickle.loads(pickle.dumps(fs))
    assert again == fs
    again.pipe_file("a", b"1")
    assert b"1" == fs.cat_file("a")
    cached = MemoriesFileSystem(target_protocol="file", manager=manager)
    assert isinstance(cached, CachedFileSystem)
    assert pickle.loads(pickle.dumps(cached)) == cached


def test_a_chain_of_protocols_is_a_cached_file_system(tmp_path: Path) -> None:
    """`memories::file://` with options in a URL, as everywhere in fsspec."""
    (tmp_path / "a.txt").write_bytes(b"hello")
    url = f"memories::file://{tmp_path}/a.txt"
    with fsspec.open(url, memories={"memory": "1 MB", "disk": "1 MB"}) as file:
        assert b"hello" == file.read()
    fs, path = fsspec.url_to_fs(url, memory="1 MB", disk="1 MB")
    assert isinstance(fs, CachedFileSystem)
    assert b"hell" == fs.cat_file(path, 0, 4)
    assert url == fs.unstrip_protocol(path)
    assert os.fspath(tmp_path / "a.txt") == fs.info(path)["name"]
    with pytest.raises(InvalidOptionError, match="either target_protocol= or fs="):
        MemoriesFileSystem(target_protocol="file", fs=LocalFileSystem())
    with pytest.raises(InvalidOptionError, match="at least one byte"):
        MemoriesFileSystem(target_protocol="file", block_size=0)
