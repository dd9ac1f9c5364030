"""A store on a network file system warns, and one in RAM is known to be there."""

from __future__ import annotations

import tempfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from memories import MemoryManager, TierName
from memories.backends.disk import DiskBackend, file_system
from memories.backends.disk.file_system import is_in_ram, kind_of
from memories.backends.disk.temp_directory import default_base
from memories.testing.backends import frame_for, record_for

MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/root rw
30 22 0:40 / /mnt/team rw - nfs4 server:/team rw
31 30 0:41 / /mnt/team/local rw - xfs /dev/sdb rw
32 22 0:42 / /mnt/with\\040space rw - fuse.sshfs host: rw
33 22 0:43 / /tmp rw,nosuid - tmpfs tmpfs rw,size=8g
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data", None),
        ("/mnt/team/store", "nfs4"),
        ("/mnt/teamwork", None),
        ("/mnt/team/local/store", None),
        ("/mnt/with space/store", "fuse.sshfs"),
    ],
)
def test_the_innermost_mount_decides(path: str, kind: str | None) -> None:
    """A local disk below a network mount is local."""
    assert kind == file_system.remote_kind(Path(path), MOUNTS)


def test_a_store_there_warns_and_does_not_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mapped pages of a file that another machine changed are stale, or gone."""
    monkeypatch.setattr(file_system, "remote_kind", lambda path: "nfs4")
    with pytest.warns(UserWarning, match="nfs4"):
        backend = DiskBackend(tmp_path / "s")
    kept = backend.write(record_for("k", 1), frame_for(bytes(2 << 20)))
    assert isinstance(backend.read(kept).obj, bytes)
    backend.close()


def test_files_in_ram_are_recognised() -> None:
    """A tier of 500 GB of disk would be one of RAM there."""
    assert [True, False] == [is_in_ram(Path(path), MOUNTS) for path in ("/tmp/x", "/var/tmp/x")]
    assert ["ext4", ""] == [kind_of(Path("/data"), text) for text in (MOUNTS, "")]


def test_temporary_stores_are_on_a_disk_if_tmp_is_in_ram(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On many systems it is; a directory that the user has chosen stays chosen."""
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    mounts = tmp_path / "mountinfo"
    monkeypatch.setattr(file_system, "_MOUNTS", mounts)
    mounts.write_text(MOUNTS)
    assert Path("/var/tmp") == default_base()
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert Path("/tmp") == default_base()
    monkeypatch.delenv("TMPDIR")
    mounts.write_text(MOUNTS.replace("/tmp", "/elsewhere"))
    assert Path("/tmp") == default_base()


def test_the_medium_of_cold_says_if_it_is_ram() -> None:
    """`stats()` calls no RAM a disk."""
    if not is_in_ram(Path("/dev/shm")):
        pytest.skip("/dev/shm is not in RAM here")
    with (
        TemporaryDirectory(dir="/dev/shm") as folder,
        MemoryManager("1 MB", "1 MB", "10 MB", storage_path=folder) as manager,
    ):
        assert "RAM (tmpfs)" == manager.stats().tiers[TierName.COLD].medium


def test_a_store_on_a_network_file_system_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is used all the same."""
    monkeypatch.setattr(file_system, "remote_kind", lambda path: "nfs4")
    with pytest.warns(match=r"is on a network file system \(nfs4\)"):
        backend = DiskBackend(tmp_path / "s")
    backend.write(record_for("k", 1), frame_for(b"value"))
    backend.close()
