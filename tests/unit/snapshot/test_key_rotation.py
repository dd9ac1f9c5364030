"""A snapshot gets another header, and its values stay as they lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from memories.errors import CorruptDataError, EncryptionKeyError
from memories.sealing.master_key import EncryptionKey, append_version, create_file
from memories.snapshot import create, open_snapshot
from memories.snapshot.key_rotation import rotate_snapshot, wrapped_key


def test_only_the_header_changes(tmp_path: Path) -> None:
    """The newest version wraps, the rest is the same bytes, and a second call does nothing."""
    create_file(tmp_path / "key", "prod")
    key, path = EncryptionKey.from_file(tmp_path / "key"), tmp_path / "s"
    create(path, [], sequence=7, key=key)
    before = path.read_bytes()
    append_version(tmp_path / "key")
    assert ("prod", 2, 1, 1) == rotate_snapshot(path, key)
    assert ("prod", 2, 0, 1) == rotate_snapshot(path, key)
    assert 2 == wrapped_key(path).version
    after = path.read_bytes()
    assert before != after
    assert before[before.index(b"mSea") :] == after[after.index(b"mSea") :]
    with open_snapshot(path, key) as snapshot:
        snapshot.verify()
        assert 7 == snapshot.sequence


def test_what_is_not_encrypted_or_has_another_key_stays(tmp_path: Path) -> None:
    """A rotation begins with the key that is in use."""
    for name in ("key", "other"):
        create_file(tmp_path / name, name)
    key, other = (EncryptionKey.from_file(tmp_path / name) for name in ("key", "other"))
    create(tmp_path / "plain", [], sequence=1)
    create(tmp_path / "s", [], sequence=1, key=key)
    before = (tmp_path / "s").read_bytes()
    with pytest.raises(CorruptDataError, match="is not an encrypted file"):
        rotate_snapshot(tmp_path / "plain", key)
    with pytest.raises(EncryptionKeyError, match="'key', and another one"):
        rotate_snapshot(tmp_path / "s", other)
    assert before == (tmp_path / "s").read_bytes()
