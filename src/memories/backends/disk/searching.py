"""Questions that a scan in key order answers, on top of the contract of backends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from memories.backends.base import Backend
from memories.model.record import Record
from memories.model.tiers import TierName


class SearchingBackend(Backend):
    """A backend that can be searched; each search reads the rows it passes, and keeps none."""

    def delete_prefix(self, prefix: str, version: Callable[[], int]) -> int:
        """Remove every key that starts with `prefix`, each at a version of its own; the count."""
        count = 0
        for record in self.scan(prefix):
            self.remove(record.key, version())
            count += 1
        return count

    def find_where(
        self,
        *,
        prefix: str = "",
        metadata: dict[str, Any] | None = None,
        tier: TierName | None = None,
        min_size: int = 0,
        max_size: int | None = None,
        stored_after: float | None = None,
        stored_before: float | None = None,
    ) -> Iterator[Record]:
        """Yield the records that meet every condition, in key order; reads each key's row."""
        wanted = (metadata or {}).items()
        for record in self.scan(prefix):
            if (
                record.size >= min_size
                and (max_size is None or record.size <= max_size)
                and (tier is None or record.tier is tier)
                and (stored_after is None or record.stored_at >= stored_after)
                and (stored_before is None or record.stored_at < stored_before)
                and wanted <= record.terms.metadata.items()
            ):
                yield record
