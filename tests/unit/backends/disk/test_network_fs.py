"""A store on a network file system warns."""

from __future__ import annotations

from pathlib import Path

import pytest

from memories.backends.disk import DiskBackend, network_fs
from memories.testing.backends import frame_for, record_for

MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/root rw
30 22 0:40 / /mnt/team rw - nfs4 server:/team rw
31 30 0:41 / /mnt/team/local rw - xfs /dev/sdb rw
32 22 0:42 / /mnt/with\\040space rw - fuse.sshfs host: rw
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
    assert kind == network_fs.remote_kind(Path(path), MOUNTS)


def test_a_store_there_warns_and_does_not_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mapped pages of a file that another machine changed are stale, or gone."""
    monkeypatch.setattr(network_fs, "remote_kind", lambda path: "nfs4")
    with pytest.warns(UserWarning, match="nfs4"):
        backend = DiskBackend(tmp_path / "s")
    kept = backend.write(record_for("k", 1), frame_for(bytes(2 << 20)))
    assert isinstance(backend.read(kept).obj, bytes)
    backend.close()
