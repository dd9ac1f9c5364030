"""Datasets whose items, after a transform, are kept in the tiers of a manager."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from operator import index as as_index
from typing import Any

from memories.codecs.content_hash import content_hash
from memories.core.manager import MemoryManager
from memories.errors import InvalidOptionError
from memories.integrations.managers import check_manager
from memories.integrations.torch.items import DatasetItems, prefix_of
from memories.model.tiers import StoreTier
from memories.sharing import SharedMemoryManager


class CachedDataset:
    """A map-style dataset over another one: `dataset[i]` is computed once.

    It can be sent to any worker of a `DataLoader`. Each item that it returns is the caller's own.
    """

    def __init__(
        self, dataset: Any, items: DatasetItems, transform: Callable[[Any], Any] | None
    ) -> None:
        self.dataset = dataset
        self._items = items
        self._transform = transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        return self._items.get(self._name(index), lambda: self._compute(index))

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def cache_clear(self) -> int:
        """Remove all items that are kept, and return how many there were."""
        return self._items.clear()

    def _compute(self, index: Any) -> Any:
        item = self.dataset[index]
        return item if self._transform is None else self._transform(item)

    def _name(self, index: Any) -> str:
        try:
            number = as_index(index)
        except TypeError:
            return content_hash(index)  # Some datasets have other keys than numbers.
        return str(number if number >= 0 else number + len(self))


def cached(
    dataset: Any,
    manager: MemoryManager | SharedMemoryManager,
    *,
    transform: Callable[[Any], Any] | None = None,
    version: int | str | None = None,
    tier: StoreTier = "cold",
    shard: bool = False,
) -> Any:
    """Return a dataset of the items of `dataset` after `transform`, each computed once.

    It is a map-style or an iterable dataset, as `dataset` is. With a `SharedMemoryManager` all
    workers, however they are started, keep what they compute, and find what others have computed.
    With a `MemoryManager` forked workers hand it to their parent; others only read.

    Items belong to the content of `dataset` and the code of `transform`: with other ones they are
    computed anew. With a `version` they belong to this version.

    Args:
        dataset: Anything with `__getitem__` and `__len__`, or an `IterableDataset`.
        manager: Keeps the items; they may be dropped for room.
        transform: A function of one item. What is random must stay outside of it.
        version: Raise it when the data or the transform change and that cannot be seen: data that
            a dataset reads from files, code of another module. It is also for datasets and
            transforms without a content that could be compared.
        tier: Where items are stored first. Other processes find what is in cold.
        shard: Of an iterable dataset that yields the same items in every worker: let each worker
            take its part.

    Raises:
        InvalidOptionError: an option is invalid.
        UnsupportedTypeError: without a version, the dataset or the transform cannot be compared.
    """
    check_manager(manager, shared=True)
    items = DatasetItems(manager._results(), prefix_of(dataset, transform, version), tier)
    torch = sys.modules.get("torch.utils.data")  # Without it there are no iterable datasets.
    if torch is not None and isinstance(dataset, torch.IterableDataset):
        from memories.integrations.torch.iterable import CachedIterable

        return CachedIterable(dataset, items, transform, shard=shard)
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise InvalidOptionError(
            f"a {type(dataset).__name__} is neither a map-style dataset, with __getitem__ and "
            "__len__, nor an IterableDataset"
        )
    if shard:
        raise InvalidOptionError(
            "shard=True is for iterable datasets: a sampler shares out indices"
        )
    return CachedDataset(dataset, items, transform)
