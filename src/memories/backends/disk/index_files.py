"""The run files and the manifest of an index, as the writer of the store changes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy

from memories.backends.disk import manifest as manifests
from memories.backends.disk.files import Files
from memories.backends.disk.follower import read_manifest
from memories.backends.disk.index import Index
from memories.backends.disk.lock import WriterLock
from memories.backends.disk.log_format import Position
from memories.backends.disk.manifest import IndexManifest
from memories.backends.disk.obsolete_files import ObsoleteFiles
from memories.backends.disk.paths import StorePaths
from memories.backends.disk.replay import START
from memories.backends.disk.run import Run
from memories.backends.disk.run_writer import write_run
from memories.backends.disk.space_accounting import SpaceAccounting
from memories.foundation.fork_lock import new_lock


class IndexFiles:
    """Writes runs and manifests of one store."""

    def __init__(
        self, paths: StorePaths, files: Files, writer_lock: WriterLock, *, mmap: bool
    ) -> None:
        self._paths, self._files, self._writer_lock = paths, files, writer_lock
        self._mmap = mmap
        self._unnamed: set[int] = set()  # Runs whose manifest may not have been saved.
        self.covered = START  # How far the manifest covers the log.
        self.saved: IndexManifest | None = None
        self.merge_lock = new_lock()  # One merge of runs at a time.

    def write(
        self,
        number: int,
        rows: Iterable[tuple[bytes, bytes, float | None]],
        pace: Callable[[], None],
    ) -> Run | None:
        """Write rows in key order as a run, and return it; None if there are none."""
        path = self._paths.run(number)
        count = write_run(path, self._files, number, rows, pace, self._writer_lock.require)
        return Run(path, self._files, mmap=self._mmap) if count else None

    def discard(self, number: int) -> None:
        """Unlink a run, unless another store lies here now."""
        self._writer_lock.directory.discard(self._files, self._paths.run(number))

    def save(self, manifest: IndexManifest, run: int) -> None:
        """Save a manifest that names `run`, which was written for it."""
        self._unnamed.add(run)
        self._writer_lock.require()
        manifests.save(manifest, self._paths, self._files)
        self._unnamed.discard(run)

    def discard_unnamed_runs(self) -> None:
        """Unlink the runs whose manifest could not be saved: on a full disk each try leaves one."""
        if not self._unnamed:
            return
        manifest = read_manifest(self._paths, self._files)
        named = set() if manifest is None else set(manifest.runs)
        for number in self._unnamed - named:  # It may have been saved, and failed after that.
            self.discard(number)
        self._unnamed &= named


def manifest_of(
    index: Index, accounting: SpaceAccounting, obsolete: ObsoleteFiles, end: Position
) -> IndexManifest:
    """Return a checkpoint of a log that ends at `end`; it must be synced before this is saved."""
    return IndexManifest(
        runs=[run.number for run in index.runs],
        segment=end.segment,
        offset=end.offset,
        segments={number: copy(stats) for number, stats in accounting.segments.items()},
        packs={number: copy(stats) for number, stats in accounting.packs.items()},
        next_file=accounting.next_file,
        last_version=accounting.last_version,
        keys=accounting.keys,
        elsewhere=accounting.elsewhere,
        live=accounting.live,
        value_bytes=accounting.value_bytes + sum(obsolete.values.values()),
        retired=[*obsolete.values.items(), *accounting.retired.items()],
    )


def forget_tombstones(manifest: IndexManifest, forgotten: Mapping[int, int]) -> None:
    """Count tombstones as dead that the runs of a manifest do not hold; bytes by segment."""
    accounting = SpaceAccounting.load(manifest)
    accounting.forget_tombstones(forgotten)
    manifest.segments = accounting.segments
