"""Sizes that look like a mistake are doubted before a terabyte of RAM is waited for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from memories import InvalidOptionError, MemoryManager
from memories.core.size_doubts import doubts
from memories.foundation.units import GB, parse_size
from memories.model.tiers import TierName


def found(hot: float, warm: float, cold: float, *sure: TierName) -> list[str]:
    """Return the doubts about sizes in GB, on a machine with 16 GB of RAM and a disk of 500 GB."""
    capacities = {
        TierName.HOT: int(hot * GB), TierName.WARM: int(warm * GB), TierName.COLD: int(cold * GB)
    }  # fmt: skip
    return list(doubts(capacities, 16 * GB, 500 * GB, sure))


@pytest.mark.parametrize("sizes", [(8, 32, 500), (4, 4, 4), (1, 2, 0.5), (0, 0, 1), (0, 64, 9000)])
def test_sizes_that_can_be_meant_are_not_doubted(sizes: tuple[float, float, float]) -> None:
    """The defaults exceed a small machine, and a tier may be smaller than the one above it."""
    assert [] == found(*sizes)


def test_megabytes_written_as_gigabytes_are_doubted() -> None:
    """The message gives what to write."""
    (hot,) = found(512, 8, 600)
    assert "hot_memory_size is 512.0 GB, and this machine has 16.0 GB of RAM" in hot
    assert hot.endswith("if megabytes are meant, write '512 MB'")
    (cold,) = found(1, 2, 50_000)
    assert "cold_memory_size is 50.0 TB, and this machine has 500.0 GB of disk" in cold


def test_a_size_with_a_unit_is_meant() -> None:
    """No user writes TB for MB; and the memory of a GPU does not depend on that of the machine."""
    assert [] == found(141, 8, 600, TierName.HOT)
    assert 1 == len(found(141, 8, 600))
    with MemoryManager("900 TB", "900 TB", "900 TB") as manager:
        manager.store("a", 1)


def test_swapped_sizes_are_doubted() -> None:
    """By position the order is easily forgotten."""
    (swapped,) = found(50, 32, 8)
    assert "hot 50.0 GB, warm 32.0 GB, cold 8.0 GB" in swapped
    assert swapped.endswith("are they swapped?")


def test_a_manager_warns_where_it_is_made(tmp_path: Path) -> None:
    """The warning points at the line of the caller, and the manager works."""
    ram = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with pytest.warns(UserWarning, match="warm_memory_size is") as warned:
        manager = MemoryManager(1, 10 * ram / GB, "10 MB", storage_path=tmp_path)
    assert [__file__] == [one.filename for one in warned]
    with manager:
        manager.store("a", 1)
    with MemoryManager(1, 10 * ram / GB, "10 MB", storage_path=tmp_path, read_only=True):
        pass  # A reader was not given the sizes by a user.


@pytest.mark.parametrize("size", [8_000_000_000, 2**30, 1e9])
def test_bytes_are_not_gigabytes(size: float) -> None:
    """A number of gigabytes above a million is refused, with what to write instead."""
    with pytest.raises(InvalidOptionError, match="a number is gigabytes") as caught:
        MemoryManager(hot_memory_size=size)
    text = str(caught.value)
    assert f"hot_memory_size={size!r} is " in text
    assert f"'{size} B'" in text
    assert size == parse_size(f"{size} B") == pytest.approx(parse_size(size / GB))


@pytest.mark.parametrize("size", ["100", " 12345 ", "0.5"])
def test_a_text_without_a_unit_is_asked_back(size: str) -> None:
    """It could be bytes, as in other libraries, or gigabytes, as the number is."""
    with pytest.raises(InvalidOptionError, match="bytes or GB"):
        MemoryManager(warm_memory_size=size)
    assert parse_size(f"{size.strip()} GB") == parse_size(float(size))
    assert 0 == parse_size("0")
