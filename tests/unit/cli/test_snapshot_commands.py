"""snapshot create, inspect, verify, restore, diff and extract: files in, words and data out."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from memories import MemoryManager

from .conftest import ARRAY, AWKWARD, TEXT, Run


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Path:
    """Return a snapshot of the store."""
    path = tmp_path_factory.mktemp("snapshots") / "s"
    with MemoryManager(storage_path=store, read_only=True, glacier_memory_enabled=True) as manager:
        manager.create_snapshot(path)
    return path


def test_create_writes_what_the_store_holds(run: Run, store: Path, tmp_path: Path) -> None:
    """A backup needs no program of one's own."""
    result = run("snapshot", "create", store, tmp_path / "s", "--json")
    assert (0, "") == (result.exit_code, result.stderr)
    summary = json.loads(result.stdout)
    assert 6 == summary["keys"]
    assert {"cold": 5, "glacier": 1} == summary["tiers"]


def test_create_builds_on_an_earlier_one(run: Run, store: Path, file: Path, tmp_path: Path) -> None:
    """And diff says that nothing has changed since."""
    assert 0 == run("snapshot", "create", store, tmp_path / "s", "--base", file).exit_code
    bases = json.loads(run("snapshot", "inspect", tmp_path / "s", "--json").stdout)["bases"]
    assert 1 == len(bases)
    assert (0, "") == (
        (result := run("snapshot", "diff", file, tmp_path / "s")).exit_code,
        result.stdout,
    )
    assert 0 == run("snapshot", "verify", tmp_path / "s").exit_code
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "s").rename(tmp_path / "elsewhere" / "s")
    moved = tmp_path / "elsewhere" / "s"
    assert 1 == run("snapshot", "verify", moved).exit_code
    assert 0 == run("snapshot", "verify", moved, "--base", file).exit_code


def test_inspect_lists_keys_that_cannot_drive_the_terminal(run: Run, file: Path) -> None:
    """A snapshot may come from any source."""
    result = run("snapshot", "inspect", file, "--keys")
    assert 6 == len(result.stdout.splitlines())
    assert not set("\x1b\u202e") & set(result.stdout)
    rows = run("snapshot", "inspect", file, "--keys", "--json").stdout.splitlines()
    found = {row["key"]: row for row in map(json.loads, rows)}
    assert {"year": 2024, "tags": ["a"]} == found["array"]["metadata"]
    assert AWKWARD in found


def test_verify_finds_damage(run: Run, file: Path, tmp_path: Path) -> None:
    """With an exit code that a script can ask for."""
    assert 0 == run("snapshot", "verify", file).exit_code
    data = bytearray(file.read_bytes())
    data[700] ^= 1
    (tmp_path / "bad").write_bytes(data)
    result = run("snapshot", "verify", tmp_path / "bad")
    assert 4 == result.exit_code
    assert "bad" in result.stderr
    assert 1 == run("snapshot", "verify", tmp_path / "absent").exit_code


def test_restore_makes_a_store(run: Run, file: Path, tmp_path: Path) -> None:
    """Existing keys are kept, unless another mode is given and confirmed."""
    store = tmp_path / "new"
    assert 0 == run("snapshot", "restore", file, store).exit_code
    assert TEXT == run("get", store, "text").stdout
    with MemoryManager(storage_path=store) as manager:
        manager.store("text", "mine", tier="cold")
        manager.store("extra", 1, tier="cold")
    assert 0 == run("snapshot", "restore", file, store).exit_code
    assert "mine" == run("get", store, "text").stdout
    assert 1 == run("snapshot", "restore", file, store, "--mode", "replace").exit_code
    assert 0 == run("snapshot", "restore", file, store, "--mode", "replace", "--yes").exit_code
    assert TEXT == run("get", store, "text").stdout
    assert 3 == run("get", store, "extra").exit_code


def test_diff_tells_added_removed_and_changed(run: Run, store: Path, tmp_path: Path) -> None:
    """In key order, one a line; exits like diff."""
    with MemoryManager(storage_path=tmp_path / "m") as manager:
        manager.store_many({"a": 1, "b": 2, "c": 3})
        manager.create_snapshot(tmp_path / "old")
        manager.delete("a")
        manager.store("b", 4)
        manager.store("d", 5)
        manager.create_snapshot(tmp_path / "new")
    result = run("snapshot", "diff", tmp_path / "old", tmp_path / "new")
    assert (1, "- a\n~ b\n+ d\n") == (result.exit_code, result.stdout)
    lines = run("snapshot", "diff", tmp_path / "old", tmp_path / "new", "--json").stdout
    assert {"change": "stored", "key": "b"} == json.loads(lines.splitlines()[1])


def test_extract_takes_one_value_out(run: Run, file: Path, tmp_path: Path) -> None:
    """Without a store, verified, in the forms of `get`."""
    result = run("snapshot", "extract", file, "array")
    np.testing.assert_array_equal(ARRAY, np.load(io.BytesIO(result.stdout_bytes)))
    assert TEXT == run("snapshot", "extract", file, "text").stdout
    assert 3 == run("snapshot", "extract", file, "none").exit_code
    assert 0 == run("snapshot", "extract", file, "bytes", "-o", tmp_path / "b").exit_code
    assert b"\x00\xff" == (tmp_path / "b").read_bytes()


def test_restore_says_what_it_did_as_json(run: Run, file: Path, tmp_path: Path) -> None:
    """For scripts."""
    result = run("snapshot", "restore", file, tmp_path / "made", "--json")
    assert (0, "") == (result.exit_code, result.stderr)
    expected = {"file": str(file), "store": str(tmp_path / "made"), "mode": "keep", "keys": 6}
    assert expected == json.loads(result.stdout)


def test_extract_describes_what_it_wrote_as_json(run: Run, file: Path, tmp_path: Path) -> None:
    """The value goes to a file then, for one stream cannot hold both."""
    result = run("snapshot", "extract", file, "array", "-o", tmp_path / "a.npy", "--json")
    assert 0 == result.exit_code
    assert "array" == json.loads(result.stdout)["key"]
    np.testing.assert_array_equal(ARRAY, np.load(tmp_path / "a.npy"))
    assert 2 == run("snapshot", "extract", file, "array", "--json").exit_code


def test_a_lost_snapshot_by_reference_is_listed_and_released(run: Run, tmp_path: Path) -> None:
    """Its file was deleted, and its id is unknown."""
    store = tmp_path / "own"
    with MemoryManager(storage_path=store, glacier_memory_enabled=True) as manager:
        manager.store("k", ARRAY, tier="glacier")
    made = run("snapshot", "create", store, tmp_path / "s", "--reference", "--json")
    identity = json.loads(made.stdout)["id"]
    (tmp_path / "s").unlink()
    listed = run("snapshot", "release", store, "--json")
    expected = {"id": identity, "objects": 1, "released": False}
    assert expected == json.loads(listed.stdout)
    assert 2 == run("snapshot", "release", store, "another").exit_code
    released = run("snapshot", "release", store, identity)
    assert f"{identity} 1 objects released\n" == released.stdout
    assert "" == run("snapshot", "release", store).stdout


def test_progress_is_shown_on_terminals_only(
    run: Run, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log must not fill with bars."""
    quiet = run("snapshot", "verify", file)
    assert "" == quiet.stderr
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True)
    shown = run("snapshot", "verify", file)
    assert "100 %" in shown.stderr
    assert quiet.stdout == shown.stdout
