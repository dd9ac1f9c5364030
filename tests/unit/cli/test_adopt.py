"""adopt: a machine with nothing but the URL sees, and takes over, what another one archived."""

from __future__ import annotations

import fractions
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from memories import MemoryManager, StoreLockedError, UntrustedDataError
from memories.backends.bucket import BucketBackend
from memories.frames.signing import Keyring

from .conftest import Run


def lost_machine(tmp_path: Path) -> Path:
    """Archive values of three kinds, lose the machine, and return where the archive lies."""
    url = tmp_path / "bucket"
    with MemoryManager(1, 1, 1, True, storage_path=tmp_path / "lost", glacier_url=url) as lost:
        lost.store("array", np.arange(100_000.0), "glacier")
        lost.store("text\n", "grün", "glacier")
        lost.store("object", fractions.Fraction, "glacier")
        lost.store("gone", 1, "glacier")
        lost.delete("gone")
    return url


def test_it_says_what_is_there_and_changes_nothing(run: Run, tmp_path: Path) -> None:
    """The first question about an archive that one has inherited."""
    url = lost_machine(tmp_path)
    before = {path: path.read_bytes() for path in url.rglob("*") if path.is_file()}
    result = run("adopt", url, "--json")
    assert (0, "") == (result.exit_code, result.stderr)
    found = json.loads(result.stdout)
    assert 3 == found["keys"] == sum(found["kinds"].values())
    assert found["bytes"] > 800_000
    assert 1 == found["pickled"]
    assert found["writer"]["closed"]
    assert found["store"] is None
    words = run("adopt", url)
    assert "keys      3\n" in words.stdout
    assert "memories key export" in words.stderr
    assert before == {path: path.read_bytes() for path in url.rglob("*") if path.is_file()}


def test_a_store_goes_on_with_it(run: Run, tmp_path: Path) -> None:
    """And every command works with it then."""
    url = lost_machine(tmp_path)
    assert 0 == run("adopt", url, tmp_path / "new").exit_code
    listed = run("ls", tmp_path / "new", "--glacier", url)
    assert ["array", "object", "text\\n"] == listed.stdout.splitlines()


def test_a_living_writer_is_not_pushed_aside(run: Run, tmp_path: Path) -> None:
    """Looking is allowed all the time, taking over is not."""
    url = lost_machine(tmp_path)
    with MemoryManager(1, 1, 1, True, storage_path=tmp_path / "lost", glacier_url=url) as owner:
        assert 0 == run("adopt", url).exit_code
        refused = run("adopt", url, tmp_path / "new")
        assert 5 == refused.exit_code
        assert "is being written by process" in refused.stderr
        owner.store("more", 1, "glacier")


def test_a_writer_that_cannot_be_asked_is_pushed_aside_on_request(run: Run, tmp_path: Path) -> None:
    """Its lease would have to run out first, and its host may be gone for good."""
    url = lost_machine(tmp_path)
    gone = BucketBackend(url, directory=tmp_path / "lost" / "archive")
    assert 2 == run("adopt", url, "--takeover").exit_code
    assert 0 == run("adopt", url, tmp_path / "new", "--takeover").exit_code
    with pytest.raises(StoreLockedError):
        gone.reclaim()
        gone._session.lease.renew()
    with pytest.raises(StoreLockedError):
        gone.close()


def test_what_is_no_archive_is_said_to_be_none(run: Run, tmp_path: Path) -> None:
    """And no directory is created for a typing mistake."""
    missing = run("adopt", tmp_path / "nothing")
    assert 1 == missing.exit_code
    assert "there is no archive" in missing.stderr
    assert not (tmp_path / "nothing").exists()
    assert 2 == run("adopt", tmp_path, "-o", "nonsense").exit_code


def test_pickled_values_need_the_exported_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fresh machine has another key, and runs nothing from a key that it does not trust."""
    url = lost_machine(tmp_path)
    exported = Keyring().export()
    monkeypatch.setenv("MEMORIES_KEY_FILE", str(tmp_path / "other user's keys"))
    fresh = tmp_path / "fresh"
    with MemoryManager(1, 1, 1, True, storage_path=fresh, glacier_url=url) as manager:
        assert 100_000 == manager.retrieve("array").size
        with pytest.raises(UntrustedDataError, match="memories key export"):
            manager.retrieve("object")
    with MemoryManager(
        1, 1, 1, True, storage_path=fresh, glacier_url=url, trusted_keys=[exported]
    ) as manager:
        assert fractions.Fraction is manager.retrieve("object")


def test_the_first_archived_pickle_is_warned_about_and_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the key it is lost with the machine; a warning each would be noise."""
    caplog.set_level(logging.WARNING, "memories")
    with MemoryManager(
        1, 1, 1, True, storage_path=tmp_path / "s", migration=False, prefetch="off"
    ) as manager:
        manager.store("typed", np.arange(3), "glacier")
        manager.store("cold", fractions.Fraction, "cold")
        assert [] == caplog.messages
        manager.migrate("cold", "glacier")
        manager.store("another", [fractions.Fraction], "glacier")
    (message,) = caplog.messages
    assert "'cold' is archived as a pickle" in message
    assert "memories key export" in message
