"""Keeps the items of one dataset: each is computed once, by whichever process needs it first."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any, Final

from memories.codecs.content_hash import content_hash
from memories.core.result_contract import ResultStore
from memories.engine.payload import Payload
from memories.errors import (
    CorruptDataError,
    ForkedError,
    KeyNotFoundError,
    StorageError,
    TierFullError,
    UnavailableError,
    UnsupportedTypeError,
    UntrustedDataError,
)
from memories.foundation.logging import logger

PREFIX = "dataset/"
ABSENT: Final = object()


class DatasetItems:
    """The items of one dataset by name, in the store of results of a manager.

    Args:
        results: The store; in another process it is one of the same manager, or a reader.
        prefix: What the keys begin with.
        tier: Where an item is stored first.
    """

    def __init__(self, results: ResultStore, prefix: str, tier: str) -> None:
        self._results = results
        self._prefix = prefix
        self._tier = tier
        results.require_tier(tier)

    def lookup(self, name: str) -> Any:
        """Return an item, the caller's own; `ABSENT` if there is none that can be read."""
        try:
            return self._results.retrieve(self._prefix + name, ABSENT, copy=True)
        except (CorruptDataError, UnavailableError, UntrustedDataError) as error:
            logger.warning("an item cannot be read and is computed again: %s", error)
            return ABSENT

    def get(self, name: str, compute: Callable[[], Any]) -> Any:
        """Return an item, computed and kept if it is absent.

        Raises:
            UnsupportedTypeError: it cannot be stored.
        """
        found = self.lookup(name)
        if found is not ABSENT:
            return found
        started = perf_counter()
        item = compute()
        self.keep(name, item, perf_counter() - started)
        return item

    def keep(self, name: str, item: Any, seconds: float = 0.0) -> None:
        """Keep an item that took `seconds` to compute; where there is no room it is not kept."""
        key = self._prefix + name
        try:
            self._results.require_writable()
        except (ForkedError, StorageError):
            # A forked worker of a plain manager: its parent keeps the item. A reader cannot.
            self._results.hand_over(
                key, Payload.of(item), tier=self._tier, ttl=None, seconds=seconds
            )
            return
        try:
            self._results.store(key, item, tier=self._tier, ttl=None, seconds=seconds, copy=True)
        except (TierFullError, KeyNotFoundError) as error:
            logger.debug("an item is too large, or was dropped at once: %s", error)
        except (StorageError, UnavailableError) as error:
            logger.warning("an item is not kept: %s", error)

    def clear(self) -> int:
        """Remove all items, and return how many there were."""
        return self._results.delete_prefix(self._prefix)


def prefix_of(dataset: Any, transform: Any, version: int | str | None) -> str:
    """Return what the keys of the items begin with: another one for other items.

    Raises:
        UnsupportedTypeError: without a version, the dataset or the transform has no content that
            could be compared.
    """
    kind = type(dataset)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if version is not None:
        named = getattr(transform, "__qualname__", type(transform).__qualname__)
        return f"{PREFIX}{name}/{content_hash(version, named, code=False)[:16]}/"
    # A dataset of Hugging Face has a fingerprint of its content, which may be on a disk.
    content = getattr(dataset, "_fingerprint", None)
    try:
        digest = content_hash(dataset if not isinstance(content, str) else content, transform)
    except UnsupportedTypeError as error:
        raise UnsupportedTypeError(
            f"the items of a {name} cannot be distinguished from those of another: {error}; give "
            "version=, and raise it when the data or the transform change"
        ) from error
    return f"{PREFIX}{name}/{digest[:16]}/"
