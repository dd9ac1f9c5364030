"""scikit-learn keeps fitted steps of a pipeline in the tiers: a manager is its `memory=`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from memories import MemoryManager, SharedMemoryManager

pytestmark = pytest.mark.filterwarnings("default")
SIZES = ("1 MB", "16 MB", "64 MB")


@pytest.fixture(params=["private", "shared"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "shared":
        with SharedMemoryManager(tmp_path / "store", cold_memory_size="64 MB") as shared:
            yield shared
    else:
        with MemoryManager(*SIZES) as one:
            yield one


def data(seed: int = 0) -> tuple[Any, Any]:
    x = np.random.default_rng(seed).normal(size=(300, 20))
    return x, (x[:, 0] + x[:, 1] > 0).astype(int)


def pipeline(manager: Any) -> Pipeline:
    return make_pipeline(StandardScaler(), PCA(5), LogisticRegression(), memory=manager)


def test_a_fitted_step_is_found_again(manager: Any) -> None:
    """Two steps are fitted once for each part of the data, whatever comes after them."""
    x, y = data()
    steps, plain = pipeline(manager), pipeline(None)
    for _ in range(2):
        assert np.array_equal(plain.fit(x, y).predict(x), steps.fit(x, y).predict(x))
        assert 2 == len(manager)
    assert clone(steps).memory is manager
    clone(steps).fit(x, y)
    assert 2 == len(manager)
    search = GridSearchCV(steps, {"logisticregression__C": [0.1, 1, 10]}, cv=3).fit(x, y)
    assert 2 + 3 * 2 == len(manager)
    same = GridSearchCV(plain, {"logisticregression__C": [0.1, 1, 10]}, cv=3).fit(x, y)
    assert same.best_score_ == search.best_score_
    assert list(cross_val_score(plain, x, y, cv=3)) == list(cross_val_score(steps, x, y, cv=3))
    assert 2 + 3 * 2 == len(manager)


def test_worker_processes_fit_with_the_same_store(tmp_path: Path) -> None:
    """Those of a shared store keep what they fit; those of another one only read."""
    x, y = data()
    for kind, kept in ((SharedMemoryManager, 4), (MemoryManager, 0)):
        with kind(storage_path=tmp_path / kind.__name__, cold_memory_size="64 MB") as manager:
            scores = cross_val_score(pipeline(manager), x, y, cv=2, n_jobs=2)
            assert list(cross_val_score(pipeline(None), x, y, cv=2)) == list(scores)
            assert kept == len(manager)
