"""ls, stat, get and check: what they print is data, and the store is as it was before."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from memories import CorruptDataError, MemoryManager
from memories.cli.output import escape

from .conftest import ARRAY, AWKWARD, TEXT, Run

KEYS = sorted(["array", "bytes", "text", "nested", "archived", AWKWARD])


def contents(path: Path) -> dict[str, bytes]:
    """Return every file below `path` with its bytes."""
    files = (one for one in path.rglob("*") if one.is_file())
    return {str(one.relative_to(path)): one.read_bytes() for one in files}


def test_ls_prints_one_key_a_line_in_order(run: Run, store: Path) -> None:
    """Other programs sort, count and join lines."""
    result = run("ls", store)
    assert (0, "") == (result.exit_code, result.stderr)
    assert len(KEYS) == len(result.stdout.splitlines())
    assert ["archived", "array", "bytes"] == result.stdout.splitlines()[:3]


def test_a_key_cannot_drive_the_terminal_or_break_its_line(run: Run, store: Path) -> None:
    """Keys come from users; an escape sequence in one must stay text."""
    line = run("ls", store, "line").stdout
    assert 1 == line.count("\n")
    assert not set("\x1b\u202e") & set(line)
    assert "🦊" in line


def test_an_escaped_key_leads_back_to_its_value(run: Run, store: Path) -> None:
    """What `ls` printed can be handed to `get`."""
    line = run("ls", store, "line").stdout.removesuffix("\n")
    assert "1\n" == run("get", "-e", store, line).stdout
    assert 3 == run("get", store, line).exit_code


@pytest.mark.parametrize("text", ["\\", "\\x1", "a\\u12"])
def test_a_broken_escape_is_wrong_usage(run: Run, store: Path, text: str) -> None:
    """It is not an absent key but a mistake that the caller can correct."""
    assert 2 == run("get", "-e", store, text).exit_code


def test_ls_takes_a_prefix(run: Run, store: Path) -> None:
    """A store may hold millions of keys."""
    assert "archived\narray\n" == run("ls", store, "ar").stdout


def test_ls_lists_what_a_manager_lists(run: Run, store: Path, tmp_path: Path) -> None:
    """It reads the index without a manager, which must not show: order, expiry, both tiers."""
    with MemoryManager(0.001, 0.001, 1, True, storage_path=tmp_path / "s") as manager:
        manager.store("gone", 1, tier="cold", ttl=0.001)
        manager.store("later", 1, tier="cold", ttl=1000)
        manager.store("far", 1, tier="glacier")
        manager.store("removed", 1, tier="cold")
        manager.delete("removed")
        time.sleep(0.01)
    assert ["far", "later"] == run("ls", tmp_path / "s").stdout.splitlines()
    for place in (store, tmp_path / "s"):
        listed = run("ls", place, "--json").stdout.splitlines()
        keys = [escape(json.loads(line)["key"]) for line in listed]
        assert keys == run("ls", place).stdout.splitlines()


def test_ls_needs_no_numpy(store: Path) -> None:
    """Its import alone takes longer than one waits for a first line."""
    code = (
        "import sys\n"
        "from memories.cli.app import app\n"
        f"app(['ls', {str(store)!r}], standalone_mode=False)\n"
        "print('numpy' in sys.modules, file=sys.stderr)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=True
    )
    assert "False\n" == run.stderr
    assert "array" in run.stdout.splitlines()


def test_ls_long_shows_tier_and_size(run: Run, store: Path) -> None:
    """The first question about a key is where it lies and what it takes."""
    lines = run("ls", "-l", store, "ar").stdout.splitlines()
    assert [["glacier", "archived"], ["cold", "array"]] == [
        [line.split()[0], line.split()[-1]] for line in lines
    ]


def test_ls_json_is_one_object_a_line(run: Run, store: Path) -> None:
    """It can be streamed, and a key comes out exactly as it was stored."""
    found = [json.loads(line) for line in run("ls", "--json", store).stdout.splitlines()]
    assert KEYS == sorted(one["key"] for one in found)
    array = next(one for one in found if one["key"] == "array")
    assert {"key", "tier", "size", "version", "metadata"} == set(array)
    assert ("cold", {"year": 2024, "tags": ["a"]}) == (array["tier"], array["metadata"])


def test_stat_counts_keys_and_bytes_of_the_durable_tiers(run: Run, store: Path) -> None:
    """How large is it, and where does it lie?"""
    found = json.loads(run("stat", "--json", store).stdout)
    assert {"cold": 5, "glacier": 1} == {
        name: tier["keys"] for name, tier in found["tiers"].items()
    }
    assert all(tier["bytes"] > 0 for tier in found["tiers"].values())
    assert 2 == len(run("stat", store).stdout.splitlines())


def test_stat_of_a_key_says_where_it_is(run: Run, store: Path) -> None:
    """With its metadata, for people and for programs."""
    assert "cold" == json.loads(run("stat", "--json", store, "array").stdout)["tier"]
    assert "year = 2024" in run("stat", store, "array").stdout
    assert 3 == run("stat", store, "nothing").exit_code


@pytest.mark.parametrize("key", ["array", "archived"])
def test_get_gives_an_array_as_npy(run: Run, store: Path, key: str) -> None:
    """NumPy, R, Julia and a dozen others read it."""
    result = run("get", store, key)
    loaded = np.load(io.BytesIO(result.stdout_bytes), allow_pickle=False)
    assert ARRAY.dtype == loaded.dtype
    assert np.array_equal(ARRAY, loaded)


def test_get_gives_bytes_and_text_as_they_are(run: Run, store: Path) -> None:
    """Without an added newline."""
    assert b"\x00\xff" == run("get", store, "bytes").stdout_bytes
    assert TEXT.encode() == run("get", store, "text").stdout_bytes


def test_get_lets_no_value_control_the_terminal(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text of another user could clear the screen, rename the window, or type commands."""
    text = "two\nlines\tand a \\ \x1b]0;owned\x07 \x9b2J \u202e"
    with MemoryManager(0.001, 0.001, 1, storage_path=tmp_path / "s") as manager:
        manager.store("text", text, tier="cold")
    assert text.encode() == run("get", tmp_path / "s", "text").stdout_bytes
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True)
    shown = run("get", tmp_path / "s", "text").stdout
    assert shown.startswith("two\nlines\tand a \\ \\x1b]0;owned\\x07 \\x9b2J \\u202e")


def test_get_gives_anything_else_as_python_writes_it(run: Run, store: Path) -> None:
    """Good enough to look at, and to read back."""
    assert "{'a': [1, 2.5, None]}\n" == run("get", store, "nested").stdout
    assert "b'\\x00\\xff'\n" == run("get", "--format", "repr", store, "bytes").stdout


def test_get_writes_a_file(run: Run, store: Path, tmp_path: Path) -> None:
    """Nothing goes to the output then."""
    result = run("get", store, "array", "-o", tmp_path / "array.npy")
    assert (0, b"") == (result.exit_code, result.stdout_bytes)
    assert np.array_equal(ARRAY, np.load(tmp_path / "array.npy"))


def test_get_json_describes_what_it_wrote(run: Run, store: Path, tmp_path: Path) -> None:
    """One output cannot hold a value and its description, so it is refused without a file."""
    target = tmp_path / "array.npy"
    described = json.loads(run("get", store, "array", "-o", target, "--json").stdout)
    known = json.loads(run("stat", store, "array", "--json").stdout)
    assert known | {"output": str(target)} == described
    np.testing.assert_array_equal(ARRAY, np.load(target))
    refused = run("get", store, "array", "--json")
    assert (2, "") == (refused.exit_code, refused.stdout)


def test_get_says_when_it_cannot_write(run: Run, store: Path, tmp_path: Path) -> None:
    """With the path, and without a traceback."""
    result = run("get", store, "array", "-o", tmp_path / "missing" / "array.npy")
    assert 1 == result.exit_code
    assert "missing" in result.stderr


@pytest.mark.parametrize(("key", "form"), [("nested", "npy"), ("nested", "bytes")])
def test_get_refuses_a_form_that_the_value_does_not_have(
    run: Run, store: Path, key: str, form: str
) -> None:
    """A file that cannot be read back is worse than none."""
    result = run("get", "--format", form, store, key)
    assert (2, b"") == (result.exit_code, result.stdout_bytes)


def test_get_of_an_absent_key_exits_with_3(run: Run, store: Path) -> None:
    """Scripts can tell it from every other failure."""
    result = run("get", store, "nothing")
    assert (3, b"") == (result.exit_code, result.stdout_bytes)
    assert "nothing" in result.stderr


def test_check_of_a_sound_store_finds_nothing(run: Run, store: Path) -> None:
    """And says how much it looked at."""
    result = run("check", store)
    assert (0, "") == (result.exit_code, result.stdout)
    assert "6 keys, 0 problems" in result.stderr
    assert [] == json.loads(run("check", "--json", store).stdout)["problems"]


def test_check_of_a_damaged_store_names_the_key_and_exits_with_4(run: Run, tmp_path: Path) -> None:
    """Cron mails the output and acts on the code."""
    path = tmp_path / "store"
    value = np.random.default_rng(0).bytes(100_000)
    with MemoryManager(0.001, 0.001, 1, storage_path=path) as manager:
        manager.store("victim", value, tier="cold")
    damage(path, value)
    result = run("check", path)
    assert 4 == result.exit_code
    assert "victim" in result.stdout
    assert "victim" == json.loads(run("check", "--json", path).stdout)["problems"][0]["key"]
    assert 4 == run("get", path, "victim").exit_code


def test_repair_is_shown_first_and_takes_nothing_for_good(run: Run, tmp_path: Path) -> None:
    """`--dry-run` tells what would go, and what went lies beside the store."""
    path = tmp_path / "store"
    value = np.random.default_rng(0).bytes(100_000)
    with MemoryManager(0.001, 0.001, 1, storage_path=path) as manager:
        manager.store("victim", value, tier="cold")
        manager.store("other", 1, tier="cold")
    damage(path, value)
    shown = run("check", "--repair", "--dry-run", path)
    assert 4 == shown.exit_code
    assert "victim" in shown.stdout
    assert "set aside in lost+found" in shown.stdout
    assert "other\nvictim\n" == run("ls", path).stdout
    assert not (path / "lost+found").exists()
    done = run("check", "--repair", path)
    assert (0, shown.stdout) == (done.exit_code, done.stdout)
    assert "other\n" == run("ls", path).stdout
    (kept,) = (path / "lost+found").glob("*/*.frame")
    assert value[60_000:] in kept.read_bytes()


def test_repair_opens_what_nothing_else_opens(run: Run, tmp_path: Path) -> None:
    """A damaged log whose index is lost: the error that refuses it names this command."""
    path = tmp_path / "store"
    value = np.random.default_rng(0).bytes(100_000)
    with MemoryManager(0.001, 0.001, 1, storage_path=path) as manager:
        for number in range(3):
            manager.store(f"k{number}", value if number == 1 else number, tier="cold")
        manager.flush()
    damage(path, value)
    shutil.rmtree(path / "cold" / "index")
    with pytest.raises(CorruptDataError, match="memories check --repair"):
        MemoryManager(0.001, 0.001, 1, storage_path=path)
    before = contents(path)
    assert 4 == run("check", "--repair", "--dry-run", path).exit_code
    assert before == contents(path)
    assert 0 == run("check", "--repair", path).exit_code
    assert "k0\nk2\n" == run("ls", path).stdout
    assert any(value[60_000:] in file.read_bytes() for file in path.glob("lost+found/*/*"))


def damage(path: Path, value: bytes) -> None:
    """Flip one bit in the middle of where `value` lies."""
    part = value[50_000:50_100]
    for file in path.rglob("*"):
        if file.is_file() and part in (data := file.read_bytes()):
            at = data.index(part)
            file.write_bytes(data[:at] + bytes([part[0] ^ 1]) + data[at + 1 :])
            return
    raise AssertionError("the value lies in no file")


def test_no_command_changes_the_store(run: Run, store: Path, tmp_path: Path) -> None:
    """Reading works while another process writes."""
    copy = shutil.copytree(store, tmp_path / "copy")
    before = contents(copy)
    for arguments in (["ls"], ["ls", "-l"], ["stat"], ["check"]):
        assert 0 == run(*arguments, copy).exit_code
    assert 0 == run("get", copy, "archived").exit_code
    assert before == contents(copy)


def test_a_store_that_is_being_written_can_be_looked_at(run: Run, tmp_path: Path) -> None:
    """The one that needs looking at is the one in use."""
    path = tmp_path / "store"
    with MemoryManager(0.001, 0.001, 1, storage_path=path) as manager:
        manager.store("durable", ARRAY, tier="cold")
        manager.store("volatile", ARRAY, tier="hot")
        assert "durable\n" == run("ls", path).stdout
        assert 0 == run("check", path).exit_code
        manager.store("later", ARRAY, tier="cold")
        assert "durable\nlater\n" == run("ls", path).stdout
