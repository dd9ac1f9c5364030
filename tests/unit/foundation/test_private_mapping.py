"""A file is mapped for one reader, who may write to it; the file stays as it is."""

from __future__ import annotations

import gc
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from memories.foundation import private_mapping
from memories.foundation.private_mapping import map_private

PAGE = mmap.ALLOCATIONGRANULARITY
CONTENT = bytes(range(1, 251)) * 1000


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    """Return a descriptor of a file of some pages."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    number = os.open(path, os.O_RDONLY)
    yield number
    os.close(number)


def private_view(descriptor: int, length: int, offset: int) -> memoryview:
    """Return a view of a new mapping, without another reference to it."""
    mapping = map_private(descriptor, length, offset)
    if mapping is None:
        pytest.skip("this system has no such call")
    return memoryview(mapping).cast("B")


def test_what_is_written_stays_with_the_reader(descriptor: int) -> None:
    one = private_view(descriptor, len(CONTENT) - PAGE, PAGE)
    other = private_view(descriptor, len(CONTENT), 0)
    assert not one.readonly and one == CONTENT[PAGE:]
    one[5] = 0
    assert 0 == one[5] != other[PAGE + 5]
    assert CONTENT == other == os.pread(descriptor, len(CONTENT), 0)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no list of descriptors")
def test_a_mapping_keeps_no_descriptor(descriptor: int) -> None:
    """A worker that has read a thousand results could not open another file."""
    own = Path("/proc/self/fd")
    path = (own / str(descriptor)).readlink()
    view = private_view(descriptor, len(CONTENT), 0)
    named = [one.name for one in own.iterdir() if points_to(one, path)]
    assert [str(descriptor)] == named and view == CONTENT


def points_to(number: Path, path: Path) -> bool:
    try:
        return number.readlink() == path
    except OSError:
        return False  # Another thread has closed it.


def test_it_is_unmapped_with_its_last_view(descriptor: int) -> None:
    others = set(private_mapping._live)
    view = private_view(descriptor, len(CONTENT), 0)
    (own,) = private_mapping._live - others
    part = view[10:20]
    del view
    gc.collect()
    assert own in private_mapping._live and part == CONTENT[10:20]
    del part
    gc.collect()
    assert own not in private_mapping._live


def test_the_caller_reads_where_nothing_can_be_mapped(
    descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system has no such call, refuses it, or has given the process all it can have."""
    with monkeypatch.context() as patch:
        patch.setattr(private_mapping, "_calls", lambda: None)
        assert map_private(descriptor, len(CONTENT), 0) is None
    with monkeypatch.context() as patch:
        patch.setattr(private_mapping, "MOST_MAPPINGS", 0)
        assert map_private(descriptor, len(CONTENT), 0) is None
    assert map_private(descriptor, len(CONTENT), 1) is None, "an offset that is not a page's"
    assert map_private(-1, len(CONTENT), 0) is None
