"""Disk backends for tests that count their calls, and what their files take."""

from __future__ import annotations

from pathlib import Path

from memories.backends.disk.backend import DiskBackend


def without_maintenance(backend: DiskBackend) -> DiskBackend:
    """Stop the background threads of `backend`: every run then makes the same calls."""
    assert backend._maintenance is not None
    backend._maintenance.stop()
    return backend


def on_disk(path: Path) -> int:
    """Return the bytes of the blocks of all files and folders below `path`, at one moment.

    Upkeep replaces files meanwhile: those that are gone by the end of the walk were perhaps never
    there together with the ones that it found last, and count nothing.
    """
    taken = dict[Path, int]()
    for file in path.rglob("*"):
        try:
            taken[file] = 512 * file.stat().st_blocks
        except FileNotFoundError:
            continue
    return sum(size for file, size in taken.items() if file.exists())
