"""Free space is asked rarely while there is plenty, and always while there is little."""

from __future__ import annotations

import pytest

from memories.backends.disk import space as spaces


class Disk:
    """A file system with a given number of free bytes, which counts the questions."""

    def __init__(self) -> None:
        self.free, self.asked = 0, 0

    def __call__(self) -> int:
        self.asked += 1
        return self.free


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(spaces, "ASK_SECONDS", 60.0)
    return disk


def test_plenty_is_asked_once_and_what_we_wrote_is_taken_off(disk: Disk) -> None:
    """A store of small values must not pay for the question at each of them."""
    space, disk.free = spaces.FreeSpace(disk), 100 << 30
    assert 100 << 30 == space(5 << 30)
    assert 99 << 30 == space(6 << 30)
    assert 100 << 30 == space(1 << 30)
    assert 1 == disk.asked


def test_little_is_asked_every_time(disk: Disk) -> None:
    """What was freed counts from the next write on, and what others took too."""
    space, disk.free = spaces.FreeSpace(disk), 1_000
    assert 1_000 == space(0)
    disk.free = 2_000
    assert 2_000 == space(50)
    disk.free = 100 << 30
    assert 100 << 30 == space(50)
    disk.free = 500
    assert 500 == space(97 << 30)
