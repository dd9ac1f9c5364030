"""A tier is resized as a whole, or not at all."""

from __future__ import annotations

import pytest

from memories import MemoryManager
from memories.engine.resizing import Resizing
from memories.model.tiers import TierName


def test_an_interrupted_resize_leaves_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy and the budget of a tier must not disagree about its capacity."""
    with MemoryManager("1 MB", "1 MB", "10 MB", migration=False) as manager:
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
