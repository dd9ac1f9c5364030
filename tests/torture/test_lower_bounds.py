"""The oldest releases that `pyproject.toml` admits really work: resolved, installed and tested.

They are those for Python 3.11, the oldest: newer Pythons have no wheels of some, and get newer
releases. The newest are what every other run is made with; in between lies pandas 2.3, the last
that does not copy on write. Needs a package index, and Python 3.11.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3600)]

PYTHON = "3.11"
# They import all dependencies, those of each extra, and all packages whose values are stored.
SUITES = (
    "tests/conformance",
    "tests/integrations",
    "tests/unit/cli",
    "tests/unit/codecs",
    "tests/unit/frames",
    "tests/unit/observe",
    "tests/unit/sealing",
    "tests/unit/backends/bucket",
    "tests/promises/test_01_exact.py",
    "tests/promises/test_01_packages.py",
    "tests/promises/test_02_aliasing.py",
    "tests/promises/test_02_tables.py",
    "tests/promises/test_encryption.py",
    "tests/promises/test_metadata.py",
    "tests/faults/test_bucket_archived.py",
    "tests/nodes/test_both_topologies.py",
    "tests/nodes/test_local.py",
)
TABLE_SUITES = (
    "tests/conformance/test_table_codecs.py",
    "tests/unit/codecs",
    "tests/promises/test_01_exact.py",
    "tests/promises/test_01_packages.py",
    "tests/promises/test_02_aliasing.py",
    "tests/promises/test_02_tables.py",
    "tests/unit/observe/analytics",
)

Uv = Callable[..., str]


def requirement(line: str) -> tuple[str, str]:
    """Return the name and the lowest version of a requirement."""
    match = re.fullmatch(r"([A-Za-z0-9_.-]+)>=([0-9.]+)", line)
    assert match, f"{line} has no lowest version"
    return normal(match[1]), match[2]


def normal(name: str) -> str:
    """Return the name of a distribution as all tools compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def short(version: str) -> str:
    """Return it without zeros at its end."""
    return re.sub(r"(\.0)+$", "", version)


def lower_bounds(repository: Path) -> dict[str, str]:
    """Return the oldest version of each package that the project depends on or takes values of."""
    document = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))
    extras = document["project"]["optional-dependencies"]
    lines = [line for name, extra in extras.items() if name != "all" for line in extra]
    lines += [*document["project"]["dependencies"], *document["dependency-groups"]["values"]]
    found: dict[str, str] = {}
    for name, version in map(requirement, lines):
        assert found.setdefault(name, version) == version, f"{name} has two lowest versions"
    return found


@pytest.fixture
def uv(tmp_path: Path) -> Uv:
    """Return a function that runs uv's `pip` for an environment of its own."""
    environment = str(tmp_path / "environment")

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "uv", "--no-python-downloads", *arguments],
            env=os.environ | {"MEMORIES_INTERPRETED": "1"},
            capture_output=True,
            text=True,
        )
        assert 0 == done.returncode, done.stderr
        return done.stdout

    def pip(command: str, *arguments: str) -> str:
        # Named, for uv takes the environment that it runs in itself.
        return run("pip", command, "--python", environment, *arguments)

    run("venv", "--quiet", "--python", PYTHON, environment)
    return pip


def run_suites(repository: Path, place: Path, suites: tuple[str, ...]) -> set[str]:
    """Run these tests in the environment of `place`; return the packages that they imported."""
    imported = place / "imported"
    imported.mkdir()
    done = subprocess.run(
        [
            *(str(place / "environment" / "bin" / "python"), "-m", "pytest", "-q", "-n", "2"),
            *("-p", "no:cacheprovider", "-p", "tests.support.imported", *suites),
        ],
        cwd=repository,
        env=os.environ | {"IMPORTED": str(imported), "MEMORIES_INTERPRETED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(done.stdout[-10_000:], file=sys.stderr)
    assert 0 == done.returncode
    return {normal(name) for file in imported.iterdir() for name in file.read_text().split()}


def test_the_lowest_versions_keep_the_promises(repository: Path, tmp_path: Path, uv: Uv) -> None:
    """An untested bound is a guess, and the users of that version find out."""
    project = str(repository / "pyproject.toml")
    extras = tomllib.loads(Path(project).read_text("utf-8"))["project"]["optional-dependencies"]
    lowest = tmp_path / "lowest.txt"
    uv(
        *("compile", project, "--all-extras", "--group", f"{project}:values"),
        *("--resolution", "lowest-direct", "--output-file", str(lowest)),
    )
    # Of what only the tests need the newest that goes with these.
    uv(
        *("install", "--editable", f"{repository}[{','.join(extras)}]"),
        *("--group", f"{project}:test", "--group", f"{project}:hosts"),
        *("--constraint", str(lowest)),
    )
    bounds = lower_bounds(repository)
    installed = {
        normal(one["name"]): one["version"] for one in json.loads(uv("list", "--format=json"))
    }
    found = {name: installed[name] for name in bounds}
    others = {name: one for name, one in found.items() if short(one) != short(bounds[name])}
    assert {} == others, "dependencies of others do not admit these bounds"

    assert set() == bounds.keys() - run_suites(repository, tmp_path, SUITES)


def test_tables_of_pandas_2_keep_the_promises(repository: Path, tmp_path: Path, uv: Uv) -> None:
    """Their columns may share memory that the caller changes."""
    uv(
        *("install", "--editable", f"{repository}[all]", "pandas==2.3.*"),
        *("--group", f"{repository / 'pyproject.toml'}:test"),
    )
    run_suites(repository, tmp_path, TABLE_SUITES)
