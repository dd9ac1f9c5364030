"""Whole stores of earlier releases, as they left them, are read, written and upgraded."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tests.format.make_golden_store import STORES, TERMS, small, values

from memories import MemoryManager
from memories.backends.bucket import open_store, pack
from memories.backends.disk import log_format, manifest, paths
from memories.cli.app import app
from memories.errors import UntrustedDataError
from memories.frames import head, signing
from memories.observe.analytics import state_document
from memories.sealing import blob, key_files, sealed_file
from memories.snapshot import FORMAT
from memories.testing.codecs import identical

RELEASES = sorted(path.name.removesuffix(".tar.xz") for path in STORES.iterdir())
DOCUMENT = Path(__file__).parents[2] / "docs" / "compatibility.md"


@pytest.fixture(params=RELEASES)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where a golden store was unpacked, for a user who has no signing key yet."""
    monkeypatch.setenv(signing.ENVIRONMENT, str(tmp_path / "own keys"))
    with tarfile.open(STORES / f"{request.param}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def opened(place: Path, name: str = "store", *, read_only: bool = False) -> MemoryManager:
    """Return a manager of the store, which trusts the keys of the user who wrote it."""
    trusted = (place / "keys").read_text("utf-8").split()
    return MemoryManager(
        *(1, 1, 5, True),
        storage_path=place / name,
        read_only=read_only,
        trusted_keys=trusted,
        migration=False,
    )


def require_whole(manager: MemoryManager, *, pickled: bool = True) -> None:
    """Fail unless everything is there that the release has stored, and nothing else."""
    for key, value in values().items():
        for name in (key, f"archived/{key}"):
            if key == "pickled" and not pickled:
                with pytest.raises(UntrustedDataError, match="before values were bound"):
                    manager.retrieve(name)
            else:
                assert identical(value, manager.retrieve(name)), name
    assert small() == {key: manager.retrieve(key) for key in manager.scan("small/")}
    found = manager.info("terms")
    assert (TERMS["metadata"], TERMS["pin"]) == (found.metadata, found.pinned)
    assert len(small()) + 2 * len(values()) + 1 == len(manager)


def test_a_store_of_an_earlier_release_is_read(place: Path) -> None:
    """By a reader, which writes nothing."""
    with opened(place, read_only=True) as manager:
        require_whole(manager)


def test_a_store_of_an_earlier_release_is_written(place: Path) -> None:
    """As if it were a new one: it is whole afterwards, and what is done stays done."""
    with opened(place) as manager:
        require_whole(manager)
        assert [] == manager.check()
        manager.store("new", np.arange(5), tier="cold")
        manager.store("newly/archived", complex, tier="glacier")
        manager.delete("in/a/file")
        manager.rename("archived/text", "renamed")
    with opened(place) as manager:
        assert identical(np.arange(5), manager.retrieve("new"))
        assert complex is manager.retrieve("newly/archived")
        assert complex is manager.retrieve("pickled")
        assert "in/a/file" not in manager
        assert values()["text"] == manager.retrieve("renamed")
        assert [] == manager.check()


def test_a_snapshot_of_an_earlier_release_is_restored(place: Path) -> None:
    """In a new store, without the old one; but pickles that belong to no store stay in that one."""
    bound = (place / "store" / "cold" / "stores" / "identity").exists()
    with opened(place, "other") as manager:
        manager.restore_snapshot(place / "snapshot")
        require_whole(manager, pickled=bound)


def test_a_store_is_upgraded(place: Path) -> None:
    """What is older is written in the newest format, everything is verified, and it is said."""
    store = place / "store"
    signing.default().own_id()  # Makes a key, as any user has who ever stored a pickle.
    files = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}

    dry = CliRunner().invoke(app, ["upgrade", str(store), "--dry-run", "--json"])
    assert 0 == dry.exit_code, dry.output
    assert files == {path: path.read_bytes() for path in files}
    planned = json.loads(dry.stdout)["parts"]

    done = CliRunner().invoke(app, ["upgrade", str(store), "--json"])
    assert 0 == done.exit_code, done.output
    said = json.loads(done.stdout)
    assert len(small()) + 2 * len(values()) + 1 == said["keys"]
    for part, found in said["parts"].items():
        assert found["after"] == found["newest"] == planned[part]["newest"]
        assert found["before"] == planned[part]["before"] == planned[part]["after"]
    with opened(place) as manager:
        require_whole(manager)

    again = CliRunner().invoke(app, ["upgrade", str(store)])
    assert (0, 3) == (again.exit_code, again.stdout.count("the newest"))


def test_an_upgrade_without_a_key_locks_no_value(place: Path) -> None:
    """A store belongs to an identity from its upgrade on; what others signed before stays readable.

    That takes a signed statement: without a key the store stays as it was.
    """
    done = CliRunner().invoke(app, ["upgrade", str(place / "store")])
    assert 0 == done.exit_code, done.output
    for _ in range(2):
        with opened(place) as manager:
            require_whole(manager)


def test_the_oldest_store_has_something_to_upgrade() -> None:
    """Otherwise the tests above would prove nothing of that."""
    with tarfile.open(STORES / f"{RELEASES[0]}.tar.xz") as archive:
        names = archive.getnames()
        index = archive.extractfile("store/cold/index/manifest")
        assert index is not None and index.read(8) == b"mMan\1\0\0\0"
    assert "store/cold/stores/identity" not in names


def test_a_snapshot_is_verified_by_upgrade(place: Path) -> None:
    """A snapshot is never written; what is wrong in it is found."""
    file = place / "snapshot"
    assert 0 == CliRunner().invoke(app, ["upgrade", str(file)]).exit_code
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert 4 == CliRunner().invoke(app, ["upgrade", str(file)]).exit_code


def test_damage_is_found_by_upgrade(place: Path) -> None:
    """An upgrade is when someone looks; a damaged value is named, and the exit code says so."""
    (file,) = (place / "store" / "cold" / "values").glob("*.val")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    done = CliRunner().invoke(app, ["upgrade", str(place / "store")])
    assert 4 == done.exit_code
    assert "in/a/file\t" in done.stdout


def test_a_later_format_is_refused(place: Path) -> None:
    """And nothing is changed."""
    file = place / "store" / "cold" / "FORMAT"
    later = file.read_bytes().replace(b":1}", b":9}")
    file.write_bytes(later)
    done = CliRunner().invoke(app, ["upgrade", str(place / "store")])
    assert 1 == done.exit_code
    assert "version 9" in done.stderr
    assert later == file.read_bytes()


def test_the_table_of_formats_is_complete() -> None:
    """docs/compatibility.md names each format, and the versions that this release reads."""
    rows = re.findall(r"^\| ([a-z ]+) \| ([\d, ]+) \|", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    assert {
        "frame": f"{head.FORMAT}, {head.UNSUMMED_FORMAT}",
        "cold log": f"{paths.FORMAT_VERSION}, {paths.ENCRYPTED_VERSION}",
        "record of the log": str(log_format.VERSION),
        "index": str(manifest.VERSION),
        "snapshot": str(FORMAT),
        "archive": open_store._FIXED_PREFIX.removeprefix("memories-"),
        "object of an archive": f"{pack._PLAIN}, {pack._ENCRYPTED}",
        "blob": str(blob._VERSION),
        "data key": str(key_files._VERSION),
        "encrypted file": str(sealed_file._VERSION),
        "telemetry": str(state_document.VERSION),
    } == dict(rows)
