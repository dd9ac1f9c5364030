"""put, rm, move and pin: they change the store, ask before they destroy, and respect its writer."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from memories import MemoryManager
from memories.cli.app import app

from .conftest import AWKWARD, Run

HOLDER = """
import sys
from memories import MemoryManager
with MemoryManager(0.001, 0.001, 1, storage_path=sys.argv[1]) as manager:
    manager.store("held", 1, tier="hot")
    print("open", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Return the directory of a store that the test may change."""
    path = tmp_path / "store"
    with MemoryManager(0.001, 0.001, 1, True, storage_path=path) as manager:
        manager.store_many({"a/1": 1, "a/2": 2, "b": 3, AWKWARD: 4}, tier="cold")
    return path


@pytest.fixture
def held(mine: Path) -> Iterator[subprocess.Popen[str]]:
    """Return a process that has the store open as its writer."""
    command = [sys.executable, "-c", HOLDER, str(mine)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert "open\n" == process.stdout.readline()
        yield process
        process.communicate("\n", timeout=240)


def put(store: Path, data: bytes, *arguments: str) -> int:
    """Pipe `data` into `memories put`, and return the exit code."""
    result = CliRunner().invoke(app, ["put", str(store), *arguments], input=data)
    assert "" == result.stdout
    return result.exit_code


def test_put_takes_what_get_gave(run: Run, mine: Path, tmp_path: Path) -> None:
    """A value can be carried from one store to another by a pipe."""
    file = io.BytesIO()
    np.save(file, np.arange(6.0).reshape(2, 3))
    assert 0 == put(mine, file.getvalue(), "array", "-m", "year=2024", "--pin")
    assert file.getvalue() == run("get", mine, "array").stdout_bytes
    with MemoryManager(storage_path=mine, read_only=True) as manager:
        assert "cold" == manager.get_tier("array")
        assert manager.explain("array").pinned
        assert ["array"] == list(manager.find(year="2024"))


@pytest.mark.parametrize(
    ("data", "form", "value"),
    [
        (b"\x00\xff", "auto", b"\x00\xff"),
        ("grün".encode(), "text", "grün"),
        (b'{"a": [1, null]}', "json", {"a": [1, None]}),
    ],
)
def test_put_says_what_the_bytes_are(mine: Path, data: bytes, form: str, value: object) -> None:
    """Bytes stay bytes unless one says more."""
    assert 0 == put(mine, data, "new", "--format", form)
    with MemoryManager(storage_path=mine, read_only=True) as manager:
        assert value == manager["new"]


@pytest.mark.parametrize(("data", "form"), [(b"x", "npy"), (b"\xff", "text"), (b"{", "json")])
def test_put_refuses_what_it_is_not(run: Run, mine: Path, data: bytes, form: str) -> None:
    """And stores nothing then."""
    assert 2 == put(mine, data, "new", "--format", form)
    assert 3 == run("get", mine, "new").exit_code


def test_put_json_says_what_was_stored(run: Run, mine: Path, tmp_path: Path) -> None:
    """The same fields as everywhere, so that a script need not ask again."""
    (tmp_path / "source").write_bytes(b"12345")
    result = run("put", mine, "new", tmp_path / "source", "-m", "a=b", "--json")
    document = json.loads(result.stdout)
    assert ("new", "cold", {"a": "b"}) == tuple(
        document[name] for name in ("key", "tier", "metadata")
    )
    assert json.loads(run("stat", mine, "new", "--json").stdout) == document
    assert "" == result.stderr


def test_put_makes_a_store_only_on_request(run: Run, tmp_path: Path) -> None:
    """A misspelt directory must not become a store."""
    assert 1 == put(tmp_path / "new", b"x", "key")
    assert not (tmp_path / "new").exists()
    assert 0 == put(tmp_path / "new", b"x", "key", "--create")
    assert b"x" == run("get", tmp_path / "new", "key").stdout_bytes


def test_rm_asks_unless_given_yes(run: Run, mine: Path) -> None:
    """A script says --yes; a person may think again."""
    asked = run("rm", mine, "b")
    assert (1, "") == (asked.exit_code, asked.stdout.strip())
    assert "3\n" == run("get", mine, "b").stdout
    answered = CliRunner().invoke(app, ["rm", str(mine), "b"], input="y\n")
    assert 0 == answered.exit_code
    assert 3 == run("get", mine, "b").exit_code


def test_rm_removes_all_or_nothing(run: Run, mine: Path) -> None:
    """A list with a mistake in it is not half done."""
    assert 3 == run("rm", "--yes", mine, "b", "absent").exit_code
    assert "3\n" == run("get", mine, "b").stdout


def test_rm_takes_a_prefix_and_escaped_keys(run: Run, mine: Path) -> None:
    """And says how many there were."""
    document = json.loads(run("rm", "--yes", "--json", mine, "--prefix", "a/").stdout)
    assert {"store": str(mine), "removed": 2} == document
    line = run("ls", mine, "line").stdout.removesuffix("\n")
    assert 0 == run("rm", "--yes", mine, "-e", line).exit_code
    assert "b\n" == run("ls", mine).stdout
    assert 2 == run("rm", "--yes", mine).exit_code
    assert 2 == run("rm", "--yes", mine, "b", "--prefix", "").exit_code


def test_move_and_pin(run: Run, mine: Path) -> None:
    """What outlives the command can be moved, and held where it is."""
    document = json.loads(run("move", "--json", mine, "b", "glacier").stdout)
    assert {"key": "b", "source": "cold", "target": "glacier"} == document
    assert "glacier" == json.loads(run("stat", "--json", mine, "b").stdout)["tier"]
    assert 2 == run("move", mine, "b", "hot").exit_code
    assert 3 == run("move", mine, "absent", "cold").exit_code
    assert 0 == run("pin", mine, "a/1").exit_code
    with MemoryManager(storage_path=mine, read_only=True) as manager:
        assert manager.explain("a/1").pinned
    assert {"key": "a/1", "pinned": False} == json.loads(
        run("pin", "--off", "--json", mine, "a/1").stdout
    )


def test_a_store_that_a_process_has_open_is_read_but_not_changed(
    run: Run, mine: Path, held: subprocess.Popen[str]
) -> None:
    """The error names the process that holds the lock."""
    assert 4 == len(run("ls", mine).stdout.splitlines())
    for arguments in (["rm", "--yes", mine, "b"], ["pin", mine, "b"], ["move", mine, "b", "cold"]):
        refused = run(*arguments)
        assert (5, "") == (refused.exit_code, refused.stdout)
        assert f"pid {held.pid}" in refused.stderr
    assert 5 == put(mine, b"x", "new")
