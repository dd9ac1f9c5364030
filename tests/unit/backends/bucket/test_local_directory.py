"""One backend uses a directory at a time, and a temporary one is removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from memories import StoreLockedError
from memories.backends.bucket.local_directory import LocalDirectory


def test_a_second_backend_is_refused_until_the_first_has_closed(tmp_path: Path) -> None:
    """Two of them would stage into the same packs."""
    first = LocalDirectory(tmp_path, full=False)
    with pytest.raises(StoreLockedError):
        LocalDirectory(tmp_path, full=False)
    first.close()
    first.close()
    LocalDirectory(tmp_path, full=False).close()


def test_without_a_path_it_is_temporary_and_removed() -> None:
    """Nothing may stay behind in the directory for temporary files."""
    directory = LocalDirectory(None, full=False)
    path = directory.db.path.parent
    assert path.is_dir() and not directory.durable
    directory.close()
    assert not path.exists()
