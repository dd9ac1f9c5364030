"""How a reader sees a store that another process may write: the checkpoint, and the log behind it.

It takes no lock and writes nothing; a forked child reads through it too. The log is only appended
to, so that a refresh reads on from where the last one ended.
"""

from __future__ import annotations

import time

from memories.backends.disk import manifest as manifests
from memories.backends.disk import paths as store_paths
from memories.backends.disk.fd_cache import Handle
from memories.backends.disk.files import Files, read_exactly
from memories.backends.disk.index import Index
from memories.backends.disk.log_format import SEGMENT_HEADER_BYTES, Position, unpack_segment_header
from memories.backends.disk.manifest import IndexManifest
from memories.backends.disk.paths import StorePaths, numbers
from memories.backends.disk.replay import START, SegmentWalk, apply, chain, row_of
from memories.backends.disk.run import Run
from memories.backends.disk.run_table import RunDamagedError
from memories.backends.disk.space_accounting import SpaceAccounting
from memories.backends.disk.store_directory import StoreDirectory
from memories.errors import StorageError
from memories.foundation.fork_lock import new_lock

REFRESH_SECONDS = 0.1
_TRY_SECONDS = 10.0


class Follower:
    """The index of a store that another process may be writing."""

    def __init__(
        self, directory: StoreDirectory, paths: StorePaths, files: Files, *, mmap: bool
    ) -> None:
        self._directory = directory
        self._paths, self._files, self._mmap = paths, files, mmap
        self._lock = new_lock()
        self._refreshed_at = float("-inf")
        self._manifest: bytes | None = None
        self._ignore_runs = False
        self._walk: SegmentWalk | None = None
        self._segment = 0
        self.index = Index()
        self.accounting = SpaceAccounting()

    def refresh(self, *, now: bool = False) -> None:
        """Read what was written since, unless that was done within the last 100 ms.

        Raises:
            StorageError: the directory is not there, or changes faster than it can be read.
        """
        if not now and time.monotonic() - self._refreshed_at < REFRESH_SECONDS:
            return
        with self._lock:
            self._refresh()

    def _refresh(self) -> None:
        give_up = time.monotonic() + _TRY_SECONDS
        while True:
            # Otherwise a store that has gone would look empty.
            self._directory.require()
            store_paths.require(self._paths)
            try:
                if self._checksum() != self._manifest or self._segment == 0:
                    self._load()
                if self._follow():
                    break
            except FileNotFoundError:
                # A file was unlinked after the manifest was read: the next manifest is newer.
                pass
            except RunDamagedError:
                self._ignore_runs = True
            self._manifest, self._segment = None, 0
            if time.monotonic() > give_up:
                raise StorageError(
                    f"{self._paths.root} changed faster than it could be read for "
                    f"{_TRY_SECONDS:.0f} seconds; open it again when the writer is less busy"
                )
            time.sleep(0.005)
        self._refreshed_at = time.monotonic()

    def close(self) -> None:
        """Close every file."""
        with self._lock:
            self._walk = None
            self.index.close()

    def distrust_runs(self) -> None:
        """Read the log from its start instead of the damaged runs."""
        with self._lock:
            self._ignore_runs, self._segment = True, 0
        self.refresh(now=True)

    def _checksum(self) -> bytes:
        """Return the checksum of the manifest, which tells it from any other."""
        try:
            descriptor = self._files.open(self._paths.manifest)
        except FileNotFoundError:
            return b""
        try:
            return self._files.read(descriptor, 16, 0)
        finally:
            self._files.close(descriptor)

    def _load(self) -> None:
        self._manifest = self._checksum()
        manifest = None if self._ignore_runs else read_manifest(self._paths, self._files)
        start = START
        self.index, self.accounting = Index(), SpaceAccounting()
        if manifest is not None:
            try:
                runs = open_runs(self._paths, self._files, manifest, mmap=self._mmap)
                self.index, self.accounting = Index(runs), SpaceAccounting.load(manifest)
                start = Position(manifest.segment, manifest.offset)
            except RunDamagedError:
                start = START
        self._segment, self._walk = -1, None
        spans, _ = chain(self._paths, self._files, start.segment)
        later = [span.number for span in spans]
        if later:
            first = start.offset if later[0] == start.segment else SEGMENT_HEADER_BYTES
            self._open(later[0], first)

    def _open(self, number: int, start: int) -> None:
        handle = Handle(self._files, self._files.open(self._paths.segment(number)))
        self._segment = number
        self._walk = SegmentWalk(self._files, handle, start, start)

    def _follow(self) -> bool:
        """Read on; return whether the log still continues from where this reader was."""
        if self._walk is None:
            return not numbers(self._paths.log, ".seg")
        while True:
            # Look for the next segment first: what its header says of this one is final.
            later = self._later()
            self._walk.extend()
            for offset, head in self._walk:
                row = row_of(self._segment, offset, head)
                apply(self.index, self.accounting, self._paths, row)
            if not later:
                return True
            before = self._before(later[0])
            if before is None:
                return len(later) == 1
            if before != Position(self._segment, self._walk.at):
                return False
            self._open(later[0], SEGMENT_HEADER_BYTES)

    def _later(self) -> list[int]:
        if numbers(self._paths.log, ".seg")[-1:] <= [self._segment]:
            return []
        spans, _ = chain(self._paths, self._files, self._segment + 1)
        return [span.number for span in spans]

    def _before(self, number: int) -> Position | None:
        descriptor = self._files.open(self._paths.segment(number))
        try:
            header = read_exactly(self._files, descriptor, SEGMENT_HEADER_BYTES, 0)
        finally:
            self._files.close(descriptor)
        return unpack_segment_header(header, number)


def read_manifest(paths: StorePaths, files: Files) -> IndexManifest | None:
    """Return the checkpoint, or None if there is none or it is damaged."""
    try:
        descriptor = files.open(paths.manifest)
    except FileNotFoundError:
        return None
    try:
        data = read_exactly(files, descriptor, files.size(descriptor), 0)
        return manifests.load(data, files.seal)
    finally:
        files.close(descriptor)


def open_runs(
    paths: StorePaths, files: Files, manifest: IndexManifest, *, mmap: bool
) -> tuple[Run, ...]:
    """Open the runs that a checkpoint names, or raise `RunDamagedError`."""
    return tuple(Run(paths.run(number), files, mmap=mmap) for number in manifest.runs)
