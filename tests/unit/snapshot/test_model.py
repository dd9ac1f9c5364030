"""A manager with snapshots against a model of plain dicts, in random order."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from memories import MemoryManager

KEYS = st.sampled_from(["a", "a.npy", "b/c", "../d", "é", "e" * 300])
VOLATILE = st.sampled_from(["hot", "warm"])
TIERS = VOLATILE | st.sampled_from(["cold", "glacier"])


class Snapshots(RuleBasedStateMachine):
    """Values are numbers or arrays that tell when they were stored."""

    @initialize()
    def open(self) -> None:
        """Start with an empty store."""
        self.root = Path(tempfile.mkdtemp(prefix="memories-model-"))
        self.model: dict[str, tuple[int, int]] = {}
        self.saved: list[tuple[Path, dict[str, tuple[int, int]]]] = []
        self.count = 0
        self.reopen()

    def reopen(self) -> None:
        self.manager = MemoryManager(
            "1MB", "2MB", 1, True, storage_path=self.root / "store", migration=False, prefetch="off"
        )

    @rule(key=KEYS, tier=TIERS, size=st.sampled_from([0, 10, 700, 5_000]))
    def store(self, key: str, tier: str, size: int) -> None:
        """Store a new value."""
        self.count += 1
        value = np.full(size, self.count, ">u4") if size else self.count
        self.manager.store(key, value, tier=tier)
        self.model[key] = (size, self.count)

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        """Delete a key, if it is there."""
        self.manager.pop(key, None)
        self.model.pop(key, None)

    @rule(key=KEYS, tier=TIERS)
    def migrate(self, key: str, tier: str) -> None:
        """Move a key, if it is there."""
        if key in self.model:
            self.manager.migrate(key, tier)

    @rule(incremental=st.booleans(), portable=st.booleans())
    def snapshot(self, incremental: bool, portable: bool) -> None:
        """Save everything, all of it or what changed since the latest snapshot."""
        base = self.saved[-1][0] if incremental and self.saved else None
        path = self.root / f"s{len(self.saved)}"
        self.manager.create_snapshot(path, base=base, portable=portable)
        self.saved.append((path, dict(self.model)))

    @precondition(lambda self: self.saved)
    @rule(
        data=st.data(),
        mode=st.sampled_from(["replace", "merge", "keep"]),
        verify=st.sampled_from(["full", "lazy"]),
        wait=st.booleans(),
    )
    def restore(self, data: st.DataObject, mode: str, verify: str, wait: bool) -> None:
        """Go back to any snapshot, in any way."""
        path, saved = data.draw(st.sampled_from(self.saved))
        self.manager.restore_snapshot(path, mode=mode, verify=verify, wait=wait)
        if mode == "replace":
            self.model = dict(saved)
        elif mode == "merge":
            self.model |= saved
        else:
            self.model = saved | self.model

    @rule()
    def close_and_reopen(self) -> None:
        """Everything is there again after a clean end."""
        self.manager.cleanup()
        self.reopen()

    @rule()
    def clear(self) -> None:
        """Remove everything."""
        self.manager.clear()
        self.model.clear()

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        """Each key has its latest value, bit for bit, and no other key is there."""
        assert sorted(self.model) == sorted(self.manager)
        for key, (size, count) in self.model.items():
            value = self.manager[key]
            if size:
                np.testing.assert_array_equal(np.full(size, count, ">u4"), value, strict=True)
            else:
                assert count == value

    def teardown(self) -> None:
        """Remove the store."""
        if hasattr(self, "manager"):
            self.manager.cleanup()
            shutil.rmtree(self.root)


TestSnapshots = Snapshots.TestCase
TestSnapshots.settings = settings(max_examples=12, stateful_step_count=25)
