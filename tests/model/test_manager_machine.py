"""The manager against a plain dict, over everything a caller may do in any order."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from tests.promises.values import identical

from memories import MemoryManager, MigrationSettings

KEYS = st.sampled_from(["a", "b", "c/d", "c/e", "é", "x" * 200, "../up"])
TIERS = st.sampled_from(["hot", "warm", "cold", "glacier"])
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary()
)
ARRAYS = st.builds(
    lambda dtype, count, seed: np.random.default_rng(seed).integers(0, 99, count).astype(dtype),
    st.sampled_from(["u1", "<i4", ">f8", "c8", "?"]),
    st.integers(0, 4000),
    st.integers(0, 9),
)
VALUES = st.one_of(
    SCALARS,
    ARRAYS,
    st.tuples(SCALARS, SCALARS),
    st.dictionaries(st.text(max_size=5), st.one_of(SCALARS, ARRAYS), max_size=3),
    st.lists(SCALARS, max_size=4),
)


class ManagerMachine(RuleBasedStateMachine):
    """Tiny volatile tiers, so that most stores push something down."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.model: dict[str, Any] = {}
        self.saved: dict[str, Any] | None = None

    @initialize()
    def open(self) -> None:
        self.manager = MemoryManager(
            "20 kB",
            "30 kB",
            "500 MB",
            glacier_memory_enabled=True,
            storage_path=self.folder / "store",
            migration=MigrationSettings(interval_seconds=3600),
        )

    @rule(key=KEYS, value=VALUES, tier=st.one_of(st.just("auto"), TIERS))
    def store(self, key: str, value: Any, tier: str) -> None:
        self.manager.store(key, value, tier)
        self.model[key] = value

    @rule(key=KEYS, value=VALUES)
    def store_volatile(self, key: str, value: Any) -> None:
        self.manager.store(key, value, "warm", volatile=True)
        self.model[key] = value

    @rule(key=KEYS)
    def retrieve(self, key: str) -> None:
        if key in self.model:
            assert identical(self.model[key], self.manager.retrieve(key))
            assert identical(self.model[key], self.manager.retrieve(key, copy=True))
        else:
            with pytest.raises(KeyError):
                self.manager.retrieve(key)
            assert self.manager.retrieve(key, "absent") == "absent"

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        if key in self.model:
            self.manager.delete(key)
            del self.model[key]
        else:
            with pytest.raises(KeyError):
                self.manager.delete(key)

    @rule(key=KEYS, tier=TIERS)
    def migrate(self, key: str, tier: str) -> None:
        if key in self.model:
            self.manager.migrate(key, tier)
            assert identical(self.model[key], self.manager.retrieve(key))

    @rule(key=KEYS, up=st.booleans())
    def step(self, key: str, up: bool) -> None:
        if key in self.model:
            (self.manager.promote if up else self.manager.demote)(key)

    @rule()
    def tick(self) -> None:
        migrator = self.manager._engine.migrator
        assert migrator is not None
        migrator.tick()
        assert migrator.failures == 0

    @rule()
    def flush(self) -> None:
        self.manager.flush()

    @rule()
    def clear(self) -> None:
        self.manager.clear()
        self.model.clear()

    @rule()
    def snapshot(self) -> None:
        self.manager.create_snapshot(self.folder / "snapshot.bin")
        self.saved = dict(self.model)

    @precondition(lambda self: self.saved is not None)
    @rule()
    def restore(self) -> None:
        assert self.saved is not None
        self.manager.restore_snapshot(self.folder / "snapshot.bin")
        self.model = dict(self.saved)

    @rule()
    def reopen(self) -> None:
        self.manager.cleanup()
        self.open()

    @invariant()
    def same_keys(self) -> None:
        if hasattr(self, "manager"):
            expected = sorted(self.model, key=str.encode)
            assert expected == list(self.manager)
            assert len(expected) == len(self.manager)

    @invariant()
    def budgets_hold(self) -> None:
        if hasattr(self, "manager"):
            for tier in self.manager.stats().tiers.values():
                assert 0 <= tier.used_bytes <= tier.effective_bytes

    def teardown(self) -> None:
        for key, value in self.model.items():
            assert identical(value, self.manager.retrieve(key))
        self.manager.cleanup()
        shutil.rmtree(self.folder)


TestManagerMachine = ManagerMachine.TestCase
TestManagerMachine.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
