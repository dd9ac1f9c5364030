"""What a caller asked for a key holds at rest too, and asking again loses nothing."""

from __future__ import annotations

import numpy as np
import pytest
from tests.promises.conftest import Make

from memories import InvalidOptionError


@pytest.mark.parametrize("tier", ["hot", "warm", "cold", "glacier"])
@pytest.mark.parametrize("count", [10, 500_000])
def test_pinning_keeps_the_value_where_it_lies(make: Make, tier: str, count: int) -> None:
    """In RAM, inline in the log, in a file of its own, and off the device."""
    value = np.random.default_rng(0).random(count)
    manager = make()
    manager.store("a", value, tier, metadata={"unit": "K"})
    manager.pin("a")
    manager.flush()
    assert np.array_equal(value, manager.retrieve("a"))
    with pytest.raises(InvalidOptionError, match="pinned"):
        manager.migrate("a", "warm" if tier != "warm" else "hot")
    manager.cleanup()
    again = make()
    assert np.array_equal(value, again.retrieve("a"))
    assert again.explain("a").pinned
    assert {"unit": "K"} == again.explain("a").metadata
    again.unpin("a")
    again.migrate("a", "hot")
    assert np.array_equal(value, again.retrieve("a"))
    assert ["a"] == list(again.find(unit="K"))
    assert [] == list(again.find(unit="F"))
