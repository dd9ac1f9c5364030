"""A snapshot and the earlier ones that contain parts of it, found, identified and open.

An incremental snapshot names in its manifest every file that it needs, by identity and by its
former path. A link never leads further: the value is in the very file that the link names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from memories.errors import CorruptDataError, MemoriesError, StorageError
from memories.sealing.master_key import EncryptionKey
from memories.snapshot.manifest import Base, Linked, Packed, SnapshotRow, Whole
from memories.snapshot.reader import SnapshotFile, open_snapshot

LocatedRow = tuple[SnapshotRow, int, int]  # With the offset and the length of its frame.


class IncrementalChain:
    """A snapshot with every base that it links to; files[0] is the snapshot itself.

    Encrypted files are opened with `key`.

    Raises:
        StorageError: a file is missing; the message names the link.
        CorruptDataError: a file is damaged, or not the one that the snapshot was made from.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        bases: Sequence[str | os.PathLike[str]] = (),
        key: EncryptionKey | None = None,
    ) -> None:
        with ExitStack() as stack:
            top = stack.enter_context(open_snapshot(path, key))
            self.files = [top]
            candidates = [Path(base) for base in bases]
            for base in top.root.bases:
                found = _find(base, top.path, candidates, key)
                self.files.append(stack.enter_context(found))
            self._check_links()
            self._stack = stack.pop_all()

    @property
    def top(self) -> SnapshotFile:
        """Return the snapshot itself."""
        return self.files[0]

    def rows(self) -> Iterator[SnapshotRow]:
        """Yield the rows of the snapshot, links included."""
        return self.top.rows()

    def batches(self, most: int) -> Iterator[list[SnapshotRow]]:
        """Yield the rows of the snapshot, up to `most` at a time."""
        for rows in self.top.pages():
            for start in range(0, len(rows), most):
                yield rows[start : start + most]

    def locate(self, row: SnapshotRow) -> tuple[int, int, int] | None:
        """Return the file (by number), offset and length of a frame; None for a reference."""
        where = row.where
        if isinstance(where, (Whole, Packed)):
            return 0, where.offset, where.length
        if isinstance(where, Linked):
            return where.base + 1, where.offset, where.length
        return None

    def located(self, rows: Sequence[SnapshotRow], number: int) -> list[LocatedRow]:
        """Return those of `rows` whose frames are in the file of this number."""
        if number:
            base = number - 1
            return [
                (row, where.offset, where.length)
                for row in rows
                if isinstance(where := row.where, Linked) and where.base == base
            ]
        return [
            (row, where.offset, where.length)
            for row in rows
            if isinstance(where := row.where, (Packed, Whole))
        ]

    def frame(self, row: SnapshotRow) -> memoryview | None:
        """Return the frame of a row, unverified; None for a reference."""
        place = self.locate(row)
        return None if place is None else self.files[place[0]].frame(*place[1:])

    def verify(self, progress: Callable[[int], object] | None = None) -> None:
        """Read every file of the chain and check every byte."""
        for file in self.files:
            file.verify(progress)

    @property
    def file_bytes(self) -> int:
        """Return the size of all files."""
        return sum(file.file_bytes for file in self.files)

    def close(self) -> None:
        """Close all files. Idempotent."""
        self._stack.close()

    def _check_links(self) -> None:
        """Check that each link names exactly one value of the file that it leads to."""
        if len(self.files) == 1:
            return
        for rows in self.top.pages():
            links = [row.where for row in rows if isinstance(row.where, Linked)]
            for number, file in enumerate(self.files[1:]):
                if not file.extents.contain([link for link in links if link.base == number]):
                    raise CorruptDataError(
                        f"{self.top.path} links to values that {file.path} does not contain"
                    )

    def __enter__(self) -> IncrementalChain:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _find(
    base: Base, snapshot: Path, candidates: Sequence[Path], key: EncryptionKey | None
) -> SnapshotFile:
    tried: list[str] = []
    for path in (*candidates, snapshot.parent / base.name):
        try:
            found = open_snapshot(path, key)
        except MemoriesError as error:
            tried.append(str(error))
            continue
        if found.root.id == base.id:
            return found
        found.close()
        tried.append(f"{path} is another snapshot")
    raise StorageError(
        f"{snapshot} is incremental and needs the snapshot {base.id.hex()}, which lay in "
        f"{base.name!r} when it was made: name the file by bases= ({'; '.join(tried)})"
    )


def links_through(base: SnapshotFile, path: str | os.PathLike[str]) -> list[Base]:
    """Return what a snapshot at `path` that builds on `base` names as its bases."""
    here = Path(os.path.realpath(path)).parent
    there = Path(os.path.realpath(base.path)).parent
    named = [Base(base.root.id, _relative(base.path.resolve(), here))]
    named += [Base(b.id, _relative(there / b.name, here)) for b in base.root.bases]
    return named


def link_to(row: SnapshotRow) -> Linked | None:
    """Return the link to what `row` of the base holds; None if that is not a frame."""
    where = row.where
    if isinstance(where, (Whole, Packed)):
        return Linked(0, where.offset, where.length)
    if isinstance(where, Linked):
        return Linked(where.base + 1, where.offset, where.length)
    return None


def _relative(path: Path, start: Path) -> str:
    return os.path.relpath(path, start)
