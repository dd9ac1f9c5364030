"""All records as of one moment, while the store goes on changing."""

from __future__ import annotations

from collections.abc import Iterator

from memories.backends.disk.overlay_index import Rows
from memories.backends.disk.space_accounting import SpaceAccounting
from memories.model.record import Record


class StoreView:
    """A point in time; what it names stays readable while it is open."""

    def __init__(self, rows: Rows, accounting: SpaceAccounting) -> None:
        self._rows = rows
        self.last_version = accounting.last_version
        self.keys = accounting.keys

    def __iter__(self) -> Iterator[Record]:
        return self.scan()

    def scan(self, prefix: str = "", after: str = "") -> Iterator[Record]:
        """Yield the records in key order."""
        for row in self._rows(prefix, after):
            yield row.record
