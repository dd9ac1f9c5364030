"""Promise 1 for the types of other packages: every tier, every step between, and a snapshot.

Each value of the conformance suites goes the whole way; the suites themselves take it through parts
and frames. A package that is not installed is skipped.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from tests.promises.conftest import Make

from memories import MemoryManager

TIERS = ("hot", "warm", "cold", "glacier")
STEPS = ("cold", "warm", "hot", "warm", "cold", "glacier", "hot")
SUITES = {
    "test_table_codecs": (
        "TestFrames",
        "TestSeriesAndIndexes",
        "TestText",
        "TestPandasScalars",
        "TestPolars",
        "TestArrow",
        "TestXarray",
        "TestSparse",
    ),
    "test_torch_codecs": ("TestTensors", "TestStates"),
    "test_jax_codecs": ("TestJaxArrays",),
    "test_tree_codecs": ("TestTrees",),
    "test_geo_codecs": ("TestGeometries", "TestGeoTables", "TestReferenceSystems", "TestProfiles"),
    "test_image_codecs": ("TestImages",),
    "test_capsule_codecs": ("TestArro3", "TestNanoarrow"),
    "test_sparse_codecs": ("TestSparse",),
}
# Asked for first: a module whose import was skipped once is imported empty the next time.
PACKAGES = {
    "test_torch_codecs": ("torch",),
    "test_jax_codecs": ("jax",),
    "test_tree_codecs": ("xarray",),
    "test_geo_codecs": ("geopandas", "rasterio"),
    "test_image_codecs": ("PIL",),
    "test_capsule_codecs": ("arro3.core", "nanoarrow"),
    "test_sparse_codecs": ("sparse",),
}
NAMES = [f"{module}:{suite}" for module, suites in SUITES.items() for suite in suites]


def suite_of(name: str) -> Any:
    """Return a suite; skip the test where its package is missing."""
    module, _, suite = name.partition(":")
    for package in PACKAGES.get(module, ()):
        pytest.importorskip(package, reason=f"{package} is not installed")
    return getattr(importlib.import_module(f"tests.conformance.{module}"), suite)()


@pytest.mark.parametrize("name", NAMES)
def test_a_value_survives_every_tier_and_every_step_between(
    manager: MemoryManager, name: str
) -> None:
    """Columns, names, time zones, categories, memory formats: whatever its package can ask for."""
    suite = suite_of(name)
    for number, value in enumerate(suite.values):
        key = f"{number}"
        for tier in TIERS:
            manager.store(key, value, tier)
            assert suite.same(value, manager.retrieve(key)), (tier, value)
        for tier, copy in (("warm", True), ("warm", False), ("cold", True), ("cold", False)):
            manager.migrate(key, tier)
            assert suite.same(value, manager.retrieve(key, copy=copy)), (tier, value)
        for tier in STEPS:
            manager.migrate(key, tier)
            assert suite.same(value, manager.retrieve(key)), (tier, value)


@pytest.mark.parametrize("name", NAMES)
def test_a_value_survives_a_snapshot(make: Make, tmp_path: Path, name: str) -> None:
    """A snapshot is made of the frames of what lay where it lay."""
    suite, manager = suite_of(name), make()
    for number, value in enumerate(suite.values):
        manager.store(f"{number}", value, TIERS[number % 4])
    manager.create_snapshot(tmp_path / "all")
    manager.clear()
    manager.restore_snapshot(tmp_path / "all")
    for number, value in enumerate(suite.values):
        assert suite.same(value, manager.retrieve(f"{number}")), value
