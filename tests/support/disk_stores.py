"""Disk backends for tests that count their calls."""

from __future__ import annotations

from memories.backends.disk.backend import DiskBackend


def without_maintenance(backend: DiskBackend) -> DiskBackend:
    """Stop the background threads of `backend`: every run then makes the same calls."""
    assert backend._maintenance is not None
    backend._maintenance.stop()
    return backend
