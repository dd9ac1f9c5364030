"""A search over the last step of a pipeline fits the steps before it once for each fold.

It needs scikit-learn. Worker processes share the store, and the next run finds it again.
"""

from __future__ import annotations

import importlib.util
import sys

if importlib.util.find_spec("sklearn") is None:
    print("this example needs scikit-learn")
    sys.exit()

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from memories import SharedMemoryManager


def main() -> None:
    x = np.random.default_rng(1).normal(size=(1000, 60))
    y = (x[:, 0] + x[:, 1] > 0).astype(int)
    with SharedMemoryManager(
        "fitted", warm_memory_size="100 MB", cold_memory_size="1 GB"
    ) as manager:
        steps = make_pipeline(StandardScaler(), PCA(10), LogisticRegression(), memory=manager)
        search = GridSearchCV(steps, {"logisticregression__C": [0.01, 0.1, 1, 10]}, cv=3, n_jobs=2)
        search.fit(x, y)
        print(f"best: {search.best_params_}")
        print(f"{len(manager)} fitted steps are kept, for {4 * 3 * 2 + 2} that were needed")


if __name__ == "__main__":
    main()
