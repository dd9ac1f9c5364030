"""A tier is resized as a whole, or not at all."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest

from memories import MemoryManager, TierFullError
from memories.engine import resizing
from memories.engine.resizing import Resizing
from memories.model.tiers import TierName


def test_an_interrupted_resize_leaves_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy and the budget of a tier must not disagree about its capacity."""
    with MemoryManager("1 MB", "1 MB", "10 MB", migration=False, prefetch="off") as manager:
        tier = manager._hierarchy.tiers.volatile[TierName.WARM]

        def interrupted(capacity: int) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(tier.victims, "resize", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Resizing(manager._hierarchy).resize(TierName.WARM, 100)
        assert (10**6, 2 * 10**6) == (tier.budget.configured, tier.victims.policy.capacity)
        monkeypatch.undo()
        Resizing(manager._hierarchy).resize(TierName.WARM, 100)
        assert (100, 10**6 + 100) == (tier.budget.configured, tier.victims.policy.capacity)


def test_a_resize_waits_for_what_is_just_being_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another thread holds for a moment refuses nothing; what a caller keeps does."""
    with MemoryManager("0 B", "10 MB", "20 MB", migration=False, prefetch="off") as manager:
        manager.store("a", np.zeros(500_000), "warm")
        held, waits = [manager["a"]], list[float]()

        def wait(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                held.clear()
            time.sleep(seconds)  # A background thread may look at the value, too.

        monkeypatch.setattr(resizing, "time", SimpleNamespace(sleep=wait))
        manager.resize("warm", "1 MB")
        before = len(waits)
        assert 3 <= before
        manager.resize("warm", "10 MB")
        manager.store("a", np.zeros(500_000), "warm")
        held.append(manager["a"])
        with pytest.raises(TierFullError, match=r"warm holds 4\.0 MB"):
            manager.resize("warm", "1 MB")
        assert before + resizing.RELEASE_POLLS == len(waits)
