"""Programs of users are checked as their type checker checks them.

A program has `assert_type` for what a checker must infer, and ends a line with `# wrong` where it
must report an error; it must report nothing else. The programs are also run.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import get_args

import pytest

from memories.core.manager import MemoryManager
from memories.errors import InvalidOptionError
from memories.frames import compression
from memories.model.tiers import TierName, TierText
from memories.options.choices import Compression, ManagerOptions
from memories.policies.registry import _OWN, OwnPolicy

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "src"
PROGRAMS = sorted((HERE / "programs").glob("*.py"))
Place = tuple[str, int]


def expected() -> set[Place]:
    """Return the lines with an error, by program."""
    return {
        (path.name, number)
        for path in PROGRAMS
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if line.endswith("# wrong")
    }


def run(*command: str, **variables: str) -> str:
    """Return the standard output of a checker, which exits with 1 where it reports errors."""
    done = subprocess.run(
        command, cwd=HERE, env={**os.environ, **variables}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def test_mypy_finds_the_wrong_lines_and_no_others(tmp_path: Path) -> None:
    """The package ships `py.typed`: what a user writes is checked against our signatures."""
    if find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    output = run(
        sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context",
        "--config-file=", f"--cache-dir={tmp_path}", *map(str, PROGRAMS), MYPYPATH=str(SOURCES),
    )  # fmt: skip
    places = re.findall(r"([\w.]+\.py):(\d+): error: (.*)", output)
    found = {(name, int(line)): text for name, line, text in places}
    assert expected() == found.keys(), "\n".join(differences(found))


def test_pyright_finds_the_wrong_lines_and_no_others() -> None:
    """Editors use pyright, which binds methods in another way than mypy."""
    pyright = which("pyright") or which("basedpyright")
    if pyright is None:
        pytest.skip("pyright is not installed")
    settings = {
        "include": ["programs"], "extraPaths": [str(SOURCES)], "typeCheckingMode": "standard",
        "pythonVersion": "3.11",
    }  # fmt: skip
    config = HERE / "pyrightconfig.json"
    config.write_text(json.dumps(settings))
    try:
        output = run(pyright, "--outputjson", "--pythonpath", sys.executable)
    finally:
        config.unlink()
    found = {
        (Path(one["file"]).name, one["range"]["start"]["line"] + 1): one["message"]
        for one in json.loads(output)["generalDiagnostics"]
        if one["severity"] == "error"
    }
    assert expected() == found.keys(), "\n".join(differences(found))


def differences(found: dict[Place, str]) -> Iterator[str]:
    """Yield what was reported and not expected, or the reverse, one a line."""
    for place in sorted(found.keys() ^ expected()):
        yield f"{place[0]}:{place[1]}: {found.get(place, 'nothing was reported')}"


@pytest.mark.parametrize("path", PROGRAMS, ids=[path.stem for path in PROGRAMS])
def test_the_programs_run(path: Path) -> None:
    """What the checkers believe about the programs is what happens."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)], env={**os.environ, "PYTHONPATH": str(SOURCES)},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert (0, "") == (done.returncode, done.stderr)


def test_the_names_of_tiers_and_policies_are_those_that_exist() -> None:
    """A checker must not refuse what the program accepts, or the reverse."""
    assert [name.value for name in TierName] == list(get_args(TierText))
    assert {policy.name for policy in _OWN} == set(get_args(OwnPolicy))


def test_the_names_of_compressions_are_those_that_exist() -> None:
    """The list is long, so it is compared with what is accepted."""
    choices = set(get_args(Compression))
    compressors = [f"{name}{level}" for name in compression._LEVELS for level in
                   ("", *(f":{number}" for number in range(10)))]  # fmt: skip
    for spec in ["none", "auto", "fast", "high", "slow", "zstd:12", *compressors]:
        try:
            compression.parse_spec(spec)
        except InvalidOptionError:
            assert spec not in choices
        else:
            assert spec in choices


def test_the_options_of_the_distributed_manager_are_those_of_the_manager() -> None:
    """It passes them on, and its signature only names them as a group."""
    options = dict(MemoryManager.__init__.__annotations__)
    options.pop("return")
    assert options == {
        name: kind.__forward_arg__ for name, kind in ManagerOptions.__annotations__.items()
    }
