"""Two workers of a DataLoader compute each item of a dataset once, in the first epoch.

Without torch, the dataset is read in this process.
"""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import Any

import numpy as np

from memories import SharedMemoryManager
from memories.torch import cached


class Noise:
    """Images that take a while to make."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> tuple[Any, int]:
        time.sleep(0.01)
        return np.random.default_rng(index).random((3, 64, 64), dtype="float32"), index


def centre(item: tuple[Any, int]) -> tuple[Any, int]:
    return item[0] - item[0].mean(), item[1]


def main() -> None:
    with SharedMemoryManager("items", cold_memory_size="1 GB") as manager:
        dataset = cached(Noise(), manager, transform=centre)
        loader: Any = dataset
        if find_spec("torch") is not None:
            from torch.utils.data import DataLoader

            loader = DataLoader(
                dataset, batch_size=None, num_workers=2, shuffle=True, persistent_workers=True
            )
        for epoch in range(3):
            start = time.perf_counter()
            labels = {int(label) for _, label in loader}
            print(f"epoch {epoch}: {len(labels)} items in {time.perf_counter() - start:.2f} s")
        print(f"{len(manager)} items are kept")


if __name__ == "__main__":
    main()
