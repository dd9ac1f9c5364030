"""Error messages that a caller reads: they name what is wrong, in the words of the caller."""

from __future__ import annotations

import numpy as np
import pytest

from memories import (
    ConflictError,
    DistributedMemoryManager,
    InvalidOptionError,
    MemoryManager,
    TierFullError,
    UnavailableError,
)


def test_an_absent_key_is_not_at_version_0() -> None:
    """Version 0 is how `if_version` spells an absent key."""
    with MemoryManager(0.001, 0.001, 0.01) as manager:
        with pytest.raises(ConflictError, match="'a' is absent, not at version 3"):
            manager.store("a", 1, if_version=3)
        manager.store("a", 1)
        with pytest.raises(ConflictError, match=r"'a' is at version \d+, not 0"):
            manager.store("a", 1, if_version=0)


def test_a_manager_without_a_device_says_so() -> None:
    """There is no library to suggest: no option would help."""
    with MemoryManager(0.001, 0.001, 0.01) as manager:
        manager.store("a", np.arange(3))
        with pytest.raises(InvalidOptionError, match="this manager has no device"):
            manager.retrieve("a", device="cuda:0")


def test_a_full_disk_tier_shows_its_usable_and_its_whole_size() -> None:
    """A part of the cold tier is kept free, so that its usable size is not the given one."""
    manager = MemoryManager(0.001, 0.001, 0.1, migration=False)
    try:
        with pytest.raises(TierFullError, match=r"\d MB usable of 100\.0 MB"):
            for number in range(40):
                manager.store(str(number), np.random.default_rng(number).bytes(3_000_000))
    finally:
        manager.cleanup(flush=False)


def test_the_only_node_is_named_once() -> None:
    """One node, one copy: the sentence has no plural and no second address."""
    with pytest.raises(UnavailableError) as caught:
        DistributedMemoryManager(0.001, nodes=["127.0.0.1:1"], replication_factor=1)
    text = str(caught.value)
    assert "the only node does not answer, and with 1 copy none may be missing: 127.0.0" in text
    assert 1 == text.count("127.0.0.1:1")
