"""Promise 2: no aliasing, wherever the value lives."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from memories import MemoryManager

TIERS = ["hot", "warm", "cold", "glacier"]


@pytest.mark.parametrize("tier", TIERS)
def test_changing_what_was_passed_in_changes_nothing(manager: MemoryManager, tier: str) -> None:
    """The caller may change its buffer again as soon as store returns."""
    array, nested = np.arange(1000.0), {"a": [np.arange(5)]}
    manager.store("array", array, tier)
    manager.store("nested", nested, tier)
    array[:] = -1
    nested["a"][0][:] = -1
    nested["a"].append("more")
    assert np.array_equal(np.arange(1000.0), manager.retrieve("array"))
    assert 1 == len(manager.retrieve("nested")["a"])
    assert np.array_equal(np.arange(5), manager.retrieve("nested")["a"][0])


@pytest.mark.parametrize("count", [100, 1_000_000])
@pytest.mark.parametrize("tier", TIERS)
def test_a_retrieved_array_cannot_be_written_or_unlocked(
    manager: MemoryManager, tier: str, count: int
) -> None:
    """Otherwise one reader could change what all others see."""
    manager.store("a", np.arange(float(count)), tier)
    view = manager.retrieve("a")
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    with pytest.raises(ValueError, match=r"WRITEABLE|writ"):
        view.setflags(write=True)
    base = view
    while isinstance(base, np.ndarray):
        with pytest.raises(ValueError, match=r"WRITEABLE|writ"):
            base.setflags(write=True)
        base = base.base


@pytest.mark.parametrize("tier", TIERS)
def test_changing_what_was_retrieved_changes_nothing(manager: MemoryManager, tier: str) -> None:
    """Mutable objects are built afresh for every reader, and a copy is the reader's own."""
    manager.store("list", [1, {"b": [2]}], tier)
    manager.retrieve("list")[1]["b"].append(3)
    assert [1, {"b": [2]}] == manager.retrieve("list")
    manager.store("array", np.arange(10), tier)
    copy = manager.retrieve("array", copy=True)
    copy[:] = 0
    assert np.array_equal(np.arange(10), manager.retrieve("array"))
    reshaped = manager.retrieve("array")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # NumPy 2.5 advises against it.
        reshaped.shape = (2, 5)
    assert (10,) == manager.retrieve("array").shape


def test_a_volatile_hit_copies_nothing(manager: MemoryManager) -> None:
    """Two readers of an array look at the same memory."""
    manager.store("a", np.arange(1000), "warm")
    assert np.shares_memory(manager.retrieve("a"), manager.retrieve("a"))


def test_a_handed_over_buffer_is_not_copied(manager: MemoryManager) -> None:
    """copy=False is for arrays that are worth a promise."""
    array = np.arange(1000)
    manager.store("a", array, "warm", copy=False)
    assert np.shares_memory(array, manager.retrieve("a"))


def test_a_view_outlives_its_value(manager: MemoryManager) -> None:
    """A reader keeps the value it holds, whatever happens to the key."""
    for tier in TIERS:
        manager.store("a", np.arange(1_000_000), tier)
        view = manager.retrieve("a")
        manager.store("a", "other", tier)
        manager.delete("a")
        assert np.array_equal(np.arange(1_000_000), view)


@pytest.mark.parametrize("tier", TIERS)
def test_a_tensor_is_cloned_unless_the_caller_vouches(manager: MemoryManager, tier: str) -> None:
    """torch cannot make it read-only: by default nothing that a reader does reaches another."""
    torch = pytest.importorskip("torch")
    weight = torch.zeros(1000)
    manager.store("state", {"a": weight, "tied": weight.view(10, 100)}, tier)
    manager.store("tensor", weight, tier)
    weight[:] = -1
    manager.retrieve("state")["a"][:] = 7
    manager.retrieve("tensor")[:] = 7
    assert 0 == manager.retrieve("tensor").abs().sum()
    own, shared = manager.retrieve("state"), manager.retrieve("state", copy=False)
    for state in (own, shared):
        assert 0 == state["a"].abs().sum()
        assert state["a"].data_ptr() == state["tied"].data_ptr()
    if tier in ("hot", "warm"):
        again = manager.retrieve("state", copy=False)
        assert own["a"].data_ptr() != shared["a"].data_ptr() == again["a"].data_ptr()
