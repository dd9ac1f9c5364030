"""The command line as a program: light to start, honest in its exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from memories import errors
from memories.cli.app import app
from memories.cli.exit_codes import failure_of

from .conftest import Run

DOCUMENT = Path(__file__).parents[3] / "docs" / "cli.md"


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as its user does."""
    command = [sys.executable, "-m", "memories", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def test_the_help_needs_neither_numpy_nor_the_engine() -> None:
    """`memories --help` answers at once, even where the installation is broken."""
    code = (
        "import sys\n"
        "from memories.cli.app import app\n"
        "app(['--help'], standalone_mode=False)\n"
        "heavy = {'numpy', 'memories.core.manager', 'rich', 'h5py', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=True
    )
    assert "[]\n" == run.stderr


def test_the_list_of_commands_says_what_each_command_says_of_itself() -> None:
    """The list is written without importing the commands, so it could drift from them."""
    for name in app.list_commands(None):  # type: ignore[arg-type]
        command = app.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        assert name == command.name
        assert command.help, name


def test_every_command_is_documented() -> None:
    """A command without a help text is not used."""
    text = DOCUMENT.read_text("utf-8")
    names = app.list_commands(None)  # type: ignore[arg-type]
    assert [] == [name for name in names if f"### `memories {name}" not in text]


def test_every_command_of_a_group_is_documented() -> None:
    """The same for the commands below `snapshot`, `cluster` and `key`."""
    text = DOCUMENT.read_text("utf-8")
    for name in app.list_commands(None):  # type: ignore[arg-type]
        group = app.get_command(None, name)  # type: ignore[arg-type]
        if isinstance(group, click.Group):
            commands = group.commands
            assert [] == [one for one in commands if not re.search(rf"[`| ]{one}[` ]", text)], name


def leaves(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield every command that does something, with the words that lead to it."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        yield from leaves(below, f"{path} {name}".lstrip())


def test_every_command_takes_json() -> None:
    """A script must not have to learn which commands it can read."""
    found = dict(leaves(app))
    without = [
        path
        for path, command in found.items()
        if not any("--json" in parameter.opts for parameter in command.params)
    ]
    assert {"ls", "key export", "snapshot verify", "cluster up"} <= set(found)
    assert [] == without


def test_completion_and_keys_as_json(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is printed in words is there as fields, and an exported key can be imported again."""
    document = json.loads(run("completion", "fish", "--json").stdout)
    script = run("completion", "fish").stdout
    assert {"shell": "fish", "source": script.removesuffix("\n")} == document
    monkeypatch.setenv("MEMORIES_KEY_FILE", str(tmp_path / "mine"))
    secret = json.loads(run("key", "export", "--json").stdout)["secret"]
    listed = json.loads(run("key", "list", "--json").stdout)
    assert str(tmp_path / "mine") == listed["file"]
    assert run("key", "list").stdout.split() == listed["ids"]
    (tmp_path / "secret").write_text(secret)
    monkeypatch.setenv("MEMORIES_KEY_FILE", str(tmp_path / "theirs"))
    imported = json.loads(run("key", "import", tmp_path / "secret", "--json").stdout)
    assert {"id": listed["ids"][0], "trusted": True} == imported


def test_python_dash_m_is_the_same_program() -> None:
    """It works where no script was put on the path."""
    run = program("--version")
    assert 0 == run.returncode
    assert run.stdout.startswith("memories ")


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["ls"], ["ls", "--nonsense", "."], ["get", "."]]
)
def test_wrong_usage_exits_with_2_and_prints_nothing(run: Run, arguments: list[str]) -> None:
    """A pipe must not take an explanation for data."""
    result = run(*arguments)
    assert (2, "") == (result.exit_code, result.stdout)
    assert result.stderr


def test_a_place_without_a_store_is_said_to_be_none(run: Run, tmp_path: Path) -> None:
    """Looking must not make a store either."""
    result = run("ls", tmp_path)
    assert (1, "") == (result.exit_code, result.stdout)
    assert "does not contain a store" in result.stderr
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.MemoriesError("x"), 1),
        (errors.StorageError("x"), 1),
        (errors.InvalidOptionError("x"), 2),
        (errors.InvalidKeyError("x"), 2),
        (errors.InvalidKeyTypeError("x"), 2),
        (errors.KeyNotFoundError("x"), 3),
        (errors.CorruptDataError("x"), 4),
        (errors.UnavailableError("x"), 5),
        (errors.StoreLockedError("x"), 5),
        (errors.ReplicationError("x"), 5),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: errors.MemoriesError, code: int) -> None:
    """A script decides by the number whether to retry, to restore or to give up."""
    assert code == failure_of(error).exit_code


def test_a_closed_pipe_is_no_traceback(store: Path) -> None:
    """`memories ls STORE | head -1` is how people look."""
    command = f"{sys.executable} -m memories ls {store} | head -n 1"
    run = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=240)
    assert "Traceback" not in run.stderr


def test_config_shows_each_value_and_where_it_comes_from(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setting without effect is usually overridden elsewhere."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "memories.toml").write_text("warm_memory_size = '1GiB'\n")
    monkeypatch.setenv("MEMORIES_ON_FULL", "evict")
    document = json.loads(run("config", "--json").stdout)
    assert {"value": "evict", "origin": "MEMORIES_ON_FULL"} == document["options"]["on_full"]
    assert str(tmp_path / "memories.toml") == document["project"]
    assert "warm_memory_size        '1GiB'" in run("config").stdout
    monkeypatch.setenv("MEMORIES_ONFULL", "evict")
    result = run("config")
    assert (2, "") == (result.exit_code, result.stdout)
    assert "on_full" in result.stderr
