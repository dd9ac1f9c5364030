"""The oldest releases that `pyproject.toml` admits really work: installed, and tested.

Needs a package index. The newest are what every other run is made with; in between lies pandas 2.3,
the last that does not copy on write.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

pytestmark = [pytest.mark.torture, pytest.mark.timeout(1800)]

SUITES = (
    "tests/conformance/test_codecs.py",
    "tests/conformance/test_table_codecs.py",
    "tests/unit/codecs",
    "tests/promises/test_01_exact.py",
    "tests/promises/test_01_packages.py",
    "tests/promises/test_02_aliasing.py",
    "tests/promises/test_02_tables.py",
    "tests/promises/test_metadata.py",
    "tests/unit/observe/analytics",
    "tests/unit/observe/metrics",
)
PACKAGES = (
    "numpy", "numcodecs", "msgspec", "xxhash", "click", "platformdirs", "pandas", "polars",
    "pyarrow", "xarray", "scipy", "ml_dtypes", "obstore", "isal", "rich", "starlette", "uvicorn",
    "matplotlib", "opentelemetry-api", "opentelemetry-sdk", "prometheus-client",
)  # fmt: skip
TOOLS = ("pytest", "pytest-timeout", "hypothesis")


def lower_bounds(repository: Path) -> dict[str, str]:
    """Return the oldest version of each package that some table of the project admits."""
    document = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))
    project = document["project"]
    tables = [project["dependencies"], *project["optional-dependencies"].values()]
    tables.append(document["dependency-groups"]["test"])
    found = {}
    for line in (line for table in tables for line in table):
        match = re.match(r"([A-Za-z0-9_.-]+)>=([0-9.]+)", line)
        if match and match[1] in PACKAGES:
            assert found.setdefault(match[1], match[2]) == match[2], f"{match[1]} has two bounds"
    assert set(PACKAGES) == set(found)
    return found


@pytest.mark.parametrize("which", ["oldest", "pandas 2.3"])
def test_the_versions_that_we_admit_keep_the_promises(
    repository: Path, tmp_path: Path, which: str
) -> None:
    """An untested bound is a guess, and the users of that version find out."""
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    bounds = lower_bounds(repository)
    pinned = [f"{name}~={version}.0" for name, version in bounds.items()]
    if which == "pandas 2.3":
        pinned = ["pandas==2.3.*", *(name for name in PACKAGES if name != "pandas")]
    quiet = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*quiet, *pinned, *TOOLS], check=True)
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *SUITES],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(done.stdout[-10_000:], file=sys.stderr)
    assert 0 == done.returncode
