"""An iterable dataset over another one: its items are kept by their positions in the stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from memories.integrations.torch.items import ABSENT, DatasetItems

END = "end"  # The name of the item that says how many there are.


class CachedIterable(IterableDataset[Any]):
    """Yields what is kept, and reads the stream only from the first item on that is not.

    Args:
        dataset: An `IterableDataset` that yields the same items in the same order each time.
        items: Keeps the items.
        transform: A function of one item.
        shard: Whether each worker takes a part of the stream. Without it the dataset gives each
            worker a part, which is kept for this worker of so many.
    """

    def __init__(
        self,
        dataset: Any,
        items: DatasetItems,
        transform: Callable[[Any], Any] | None,
        *,
        shard: bool,
    ) -> None:
        self.dataset = dataset
        self._items = items
        self._transform = transform
        self._shard = shard

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        first, step, stream = (
            (worker, workers, "") if self._shard else (0, 1, f"{workers}-{worker}/")
        )
        position = first
        end = self._items.lookup(stream + END)
        while end is not ABSENT and position < end:
            found = self._items.lookup(f"{stream}{position}")
            if found is ABSENT:
                break
            yield found
            position += step
        if end is not ABSENT and position >= end:
            return
        count = 0
        for count, item in enumerate(self.dataset, 1):
            number = count - 1
            if number >= position and (number - first) % step == 0:
                yield self._items.get(f"{stream}{number}", partial(self._compute, item))
        self._items.keep(stream + END, count)

    def cache_clear(self) -> int:
        """Remove all items that are kept, and return how many there were."""
        return self._items.clear()

    def _compute(self, item: Any) -> Any:
        return item if self._transform is None else self._transform(item)
