"""Where repair puts what it removes from a store: a directory beside it, with a report.

Repair removes nothing that does not lie here first, synced. The directory is for people: it is
never read or cleaned up here, because it may hold the only bytes left of a value.
"""

from __future__ import annotations

import errno
import tempfile
import time
from pathlib import Path

import msgspec

from memories.backends.disk.files import Files, append, read_exactly
from memories.backends.disk.paths import StorePaths
from memories.model.record import Record

REPORT = "report.jsonl"
_COPY_BYTES = 8 << 20


class ReportLine(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line of the report."""

    what: str  # Why it was taken out.
    source: str  # The file it lay in, whole or in part,
    kept: str  # and the one in which it lies now.
    offset: int = 0
    length: int | None = None  # None for the whole file.
    key: str | None = None  # The key of the value; None if it belongs to no key.
    version: int = 0
    kind: str = ""
    stored_at: float = 0.0


class LostAndFound:
    """One directory for one repair, made when the first thing is put into it."""

    def __init__(self, paths: StorePaths, files: Files) -> None:
        self._paths, self._files = paths, files
        self._directory: Path | None = None
        self._count = 0

    def add_file(self, path: Path, what: str, record: Record | None = None) -> None:
        """Add a file under a second name, which takes no room."""
        kept = self._next(path.name)
        try:
            self._files.link(path, kept)
        except OSError:  # Not every file system has hard links; the copy raises any other error.
            self._copy(path, kept, 0, None)
        self._report(ReportLine(what=what, source=str(path), kept=kept.name), record)

    def add_part(self, path: Path, offset: int, length: int, what: str, record: Record) -> None:
        """Add some bytes of a file, or as many of them as there are."""
        kept = self._next(f"{path.name}-{offset}.frame")
        self._copy(path, kept, offset, length)
        line = ReportLine(what=what, source=str(path), kept=kept.name, offset=offset, length=length)
        self._report(line, record)

    def _next(self, name: str) -> Path:
        if self._directory is None:
            self._directory = self._make()
        self._count += 1
        return self._directory / f"{self._count:06d}-{name}"

    def _make(self) -> Path:
        """Make `lost+found/NAME-TIME-...` beside the store."""
        root = self._paths.root.absolute()
        prefix = f"{root.name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-"
        try:
            return self._made(root.parent / "lost+found", prefix)
        except PermissionError:
            # At the root of a file system lost+found is the system's; or only the store is ours.
            return self._made(root / "lost+found", prefix)

    def _made(self, outer: Path, prefix: str) -> Path:
        self._files.mkdir(outer)
        directory = Path(tempfile.mkdtemp(prefix=prefix, dir=outer))
        self._files.sync_directory(outer)
        return directory

    def _copy(self, path: Path, kept: Path, offset: int, length: int | None) -> None:
        given = self._files.open(path)
        try:
            end = self._files.size(given)
            end = end if length is None else min(end, offset + length)
            taken = self._files.create(kept)
            try:
                while offset < end:
                    data = read_exactly(self._files, given, min(_COPY_BYTES, end - offset), offset)
                    if not data:
                        raise OSError(errno.EIO, "it became shorter while it was copied")
                    append(self._files, taken, [data])
                    offset += len(data)
                self._files.sync(taken)
            finally:
                self._files.close(taken)
        finally:
            self._files.close(given)

    def _report(self, kept: ReportLine, record: Record | None) -> None:
        assert self._directory is not None
        if record is not None and self._files.seal is not None:
            # The report is not encrypted, and what is wrong may name the key.
            kept.what, kept.version = "the value is damaged", record.version
        elif record is not None:
            kept.key, kept.version = record.key, record.version
            kept.kind, kept.stored_at = record.kind, record.stored_at
        path = self._directory / REPORT
        descriptor = self._files.reopen(path) if path.exists() else self._files.create(path)
        try:
            append(self._files, descriptor, [msgspec.json.encode(kept) + b"\n"])
            self._files.sync(descriptor)
        finally:
            self._files.close(descriptor)
        self._files.sync_directory(self._directory)
