"""What would be published: complete, without what does not belong there, the same every time."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("build", "hatchling", "twine")
MISSING = [part for part in PARTS if importlib.util.find_spec(part) is None]
SECRETS = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY|AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}"
    rb"|/(?:ro"
    rb"ot|ho"
    rb"me)/\w"
)

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"needs {MISSING} (.ci/venv dist)"),
    pytest.mark.timeout(900),  # It builds.
]


def build(place: Path, kind: str, source: Path = ROOT) -> Path:
    """Build a pure wheel or an sdist, as a release does, and return the file."""
    subprocess.run(
        [
            *(sys.executable, "-m", "build", f"--{kind}", "--no-isolation"),
            *("--outdir", str(place), str(source)),
        ],
        env=os.environ | {"MEMORIES_INTERPRETED": "1", "SOURCE_DATE_EPOCH": "1700000000"},
        check=True,
        capture_output=True,
        timeout=800,
    )
    (built,) = place.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel."""
    return build(tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an sdist."""
    return build(tmp_path_factory.mktemp("sdist"), "sdist")


def test_a_wheel_contains_the_package_and_nothing_else(wheel: Path) -> None:
    """No test, no build output, no cache; every source, the marker of types, the licences."""
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.partition("/")[0] for name in names}
    assert len(tops) == 2 and "memories" in tops
    package = ROOT / "src"
    expected = {
        str(path.relative_to(package))
        for path in (package / "memories").rglob("*")
        if path.is_file() and not {"__pycache__", "__compiled__"} & set(path.parts)
    }
    assert expected == {name for name in names if name.startswith("memories/")}
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert "memories/py.typed" in names


def test_an_sdist_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    """Distributions build from it, so it needs all that the repository needs."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    again = build(tmp_path / "out", "wheel", source)
    assert digest(wheel) == digest(again)
    assert {"Makefile", ".ci", "tests", "docs", "LICENSE"} <= {
        path.name for path in source.iterdir()
    }


def test_a_second_build_gives_the_same_bytes(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    """A release can be checked by building it again."""
    assert digest(sdist) == digest(build(tmp_path / "sdist", "sdist"))
    assert digest(wheel) == digest(build(tmp_path / "wheel", "wheel"))


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_nothing_secret_and_no_path_of_a_machine_is_published(sdist: Path) -> None:
    """By the forms that keys and home directories have."""
    found = []
    with tarfile.open(sdist) as archive:
        for member in archive:
            if "/tests/" in member.name:  # There are made-up ones.
                continue
            file = archive.extractfile(member)
            if file is not None and (hit := SECRETS.search(file.read())):
                found.append((member.name, hit[0]))
    assert [] == found


def test_the_metadata_are_complete(wheel: Path, sdist: Path) -> None:
    """A package index shows them, and twine finds nothing to complain about."""
    run = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = message_from_string(archive.read(name).decode())
    assert metadata["License-Expression"]
    assert metadata["Requires-Python"] == ">=3.11"
    assert {"Typing :: Typed"} <= set(metadata.get_all("Classifier", []))


def test_all_is_all() -> None:
    """The extra `all` names every other extra but frameworks: a program has its own already."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    (named,) = (re.findall(r"\[(.*)\]", one)[0] for one in extras["all"])
    frameworks = {"django", "dogpile", "key-value", "langchain"}
    assert set(extras) - {"all"} - frameworks == set(named.split(","))
