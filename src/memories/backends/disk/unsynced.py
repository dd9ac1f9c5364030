"""The value files that a sync still owes: written and named by the log, but not yet synced."""

from __future__ import annotations

from collections.abc import Set

from memories.backends.disk.files import Files, sync_file
from memories.backends.disk.log_format import FILE, IndexRow, unpack_place
from memories.backends.disk.paths import StorePaths
from memories.foundation.fork_lock import new_lock


class Unsynced:
    """Value files to be synced, and those whose sync failed. The writer's lock guards them."""

    def __init__(self, paths: StorePaths, files: Files, *, full: bool) -> None:
        self._paths, self._files, self._full = paths, files, full
        self.values: dict[int, str] = {}  # Value files, and the keys they belong to.
        self.started: Set[int] = frozenset()  # Those of which a sync has begun.
        self.inherited = False  # Whether a killed writer left some of them.
        self.suspect: set[int] = set()  # Those whose sync failed.
        self.sync_lock = new_lock()  # Held during a sync; taken before the writer's lock.

    def add(self, old: IndexRow | None, row: IndexRow) -> None:
        """Include the file of `row`, if it is a new value's, in the next sync."""
        if (
            row.kind == FILE
            and not self._full
            and (old is None or old.record.place != row.record.place)
        ):
            self.values[unpack_place(row.record.place).file] = row.record.key

    def sync(self, values: dict[int, str]) -> dict[int, str]:
        """Sync these value files; return those that are not there.

        Raises:
            OSError: a sync failed. The kernel reports a failure only once, so that this value must
                be written again: it is in `suspect` from now on.
        """
        missing = {}
        for number, key in values.items():
            try:
                sync_file(self._files, self._paths.value(number))
            except FileNotFoundError:
                missing[number] = key
            except OSError:
                self.suspect.add(number)
                raise
        if values:
            self._files.sync_directory(self._paths.values)
        return missing
