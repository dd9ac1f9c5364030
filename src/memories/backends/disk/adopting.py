"""What a store does with whole files of frames: adopts them, shared, lent or copied.

Only the face of it: how a file comes in is decided in `adopt`, what is lent in `loans`.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

from memories.backends.disk.background_import import BackgroundImport, ImportDone, Replaced
from memories.backends.disk.import_file import Adopted, Adoption
from memories.backends.disk.index import Index
from memories.backends.disk.os_errors import storage_error
from memories.backends.disk.overlay_index import OverlayIndex
from memories.backends.disk.searching import SearchingBackend
from memories.backends.disk.writer import Writer


class AdoptingBackend(SearchingBackend):
    """A store that takes over files as they lie."""

    _loans: BackgroundImport | None = None  # Of the writer; in a forked child those of its parent.
    _index: Index | OverlayIndex  # Through which a writer's readers look.

    @abstractmethod
    def _writing(self) -> Writer:
        """Return who writes, or raise what keeps this process from it."""

    def adopt(
        self,
        path: str | os.PathLike[str],
        batches: Iterable[Sequence[Adoption]],
        *,
        lent: int | None = None,
    ) -> Adopted:
        """Take over a file of frames as it lies: each item is a record, its offset and length.

        Shares the file's blocks where the file system can (see `adopt`); nobody may change it
        afterwards. Each batch, of different keys, is journaled in one append before the next one
        is asked for, so that the caller can hold their locks. `lent` is a descriptor of the file:
        what cannot be shared is read through it until `settle_soon` or `sync` has copied it.
        """
        writer = self._writing()
        try:
            return self._lending().adopt(Path(path), batches, lent)
        except OSError as error:
            raise storage_error(f"adopt {path}", writer.paths.root, error) from error

    def hide(self, below: int, replaced: Replaced) -> None:
        """Let no version below this one be seen, and remove them when all that is lent is here.

        `replaced` is entered with each record that goes then, for as long as that takes.
        """
        self._lending().hide(below, replaced)

    def settle_soon(self, told: ImportDone) -> None:
        """Copy in the background what is lent; `told` hears None once it is durable, or why not."""
        self._lending().settle_soon(told)

    def bury(self) -> None:
        """Remove what is hidden now, for what replaced it is durable already or gone itself."""
        self._lending().bury()

    def is_lent(self, key: str) -> bool:
        """Return whether a crash would lose what `find` gives for `key`, for it is only lent."""
        lent = self._lent()
        return lent is not None and lent.waits(key)

    def _lending(self) -> BackgroundImport:
        self._writing()
        assert self._loans is not None, "who writes has opened them"
        return self._loans

    def _show(self, index: Index | OverlayIndex) -> None:
        self._index = index

    def _lent(self) -> OverlayIndex | None:
        return None if self._loans is None else self._loans.lent
