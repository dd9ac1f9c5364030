"""Hosts get values as bytes: whole, in part and by size, or an error that says why not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from memories import MemoryManager, UnsupportedTypeError
from memories.integrations.byte_values import folder, is_in_ram, read_bytes, size_of
from memories.model.tiers import StoreTier

DATA = bytes(range(200))


@pytest.fixture
def manager() -> Iterator[MemoryManager]:
    with MemoryManager("1 MB", "1 MB", "10 MB") as one:
        yield one


@pytest.mark.parametrize("tier", ["hot", "warm", "cold"])
@pytest.mark.parametrize("value", [DATA, bytearray(DATA), np.frombuffer(DATA, np.uint8)])
def test_a_part_of_bytes_is_the_same_in_every_tier(
    manager: MemoryManager, tier: StoreTier, value: Any
) -> None:
    """A host must not notice where a value is, or as which type of bytes it was stored."""
    manager.store("key", value, tier)
    for start, stop in ((0, None), (3, 9), (190, 400), (300, 400), (5, 5)):
        assert DATA[start:stop] == bytes(read_bytes(manager, "key", start, stop) or b"")
    assert len(DATA) == size_of(manager, "key")
    assert (tier != "cold") == is_in_ram(manager, "key")


def test_absent_is_none(manager: MemoryManager) -> None:
    """Each host has its own way to say that a file is absent."""
    assert read_bytes(manager, "key") is None
    assert size_of(manager, "key") is None
    assert is_in_ram(manager, "key") is None


@pytest.mark.parametrize("value", ["text", [1], np.zeros(3)])
def test_other_values_are_refused(manager: MemoryManager, value: Any) -> None:
    """Numbers that another program stored are not the bytes of a chunk."""
    manager.store("key", value)
    with pytest.raises(UnsupportedTypeError, match="'key' holds a"):
        read_bytes(manager, "key")


def test_a_prefix_ends_with_one_slash() -> None:
    """`cubes`, `cubes/` and `/cubes/` name one folder, and none is no folder."""
    assert {"cubes/"} == {folder(one) for one in ("cubes", "cubes/", "/cubes/")}
    assert {""} == {folder(one) for one in ("", "/")}
