"""Changes of a key that leave its value: interrupted ones are done or not done."""

from __future__ import annotations

from pathlib import Path

import pytest

from memories import MemoryManager


def test_terms_are_the_same_in_ram_and_at_rest_after_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the key would expire before a restart and not after it."""
    with MemoryManager(
        "1 MB", "1 MB", "10 MB", storage_path=tmp_path, migration=False, prefetch="off"
    ) as manager:
        manager.store("a", [1], "cold")
        manager.promote("a")
        replace, calls = manager._hierarchy.mover.replace_terms, 0

        def interrupted(*arguments: object) -> object:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise KeyboardInterrupt
            return replace(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(manager._hierarchy.mover, "replace_terms", interrupted)
        with pytest.raises(KeyboardInterrupt):
            manager.set_terms("a", ttl=600, metadata={"x": 1})
        info, record = manager.info("a"), manager._hierarchy.catalog.record("a")
        assert "warm" == info.tier and {"x": 1} == info.metadata
        assert record is not None and info.expires_at == record.terms.expires_at is not None
        assert 2 == calls and [1] == manager["a"]
