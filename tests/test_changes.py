"""The notes of what the next release changes: their form, and the check that there are any."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "changes" / "README.md").read_text("utf-8")


def kinds() -> list[str]:
    """Return the kinds of notes, in the order of the sections."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return [one["directory"] for one in document["tool"]["towncrier"]["type"]]


def test_the_kinds_are_explained() -> None:
    """In the order in which a reader gets them."""
    assert kinds() == re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)


def test_notes_have_one_form() -> None:
    """A misspelt kind would be left out of the changelog without a word."""
    for path in (ROOT / "changes").iterdir():
        if path.name != "README.md":
            assert re.fullmatch(rf"\+[a-z0-9-]+\.({'|'.join(kinds())})\.md", path.name), path.name
            assert re.fullmatch(r"\S.*[.]\n", path.read_text("utf-8"), re.DOTALL), path.name


def test_sections_begin_after_the_mark() -> None:
    """Where a release puts its section; without the mark it would be put above the title."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    mark = document["tool"]["towncrier"]["start_string"]
    before, _, after = (ROOT / "CHANGELOG.md").read_text("utf-8").partition(mark)
    assert before.startswith("# Changelog") and "\n## " not in before
    assert after.startswith("\n## ")


@pytest.mark.parametrize(
    ("files", "message", "passes"),
    [
        (["src/a.py"], "a: change", False),
        (["src/a.py", "changes/+a.fixed.md"], "a: change", True),
        (["src/a.py", "CHANGELOG.md"], "a: change", True),
        (["src/a.py"], "a: change\n\nChangelog: none", True),
        (["tests/a.py"], "tests: change", True),
    ],
)
def test_a_branch_that_changes_the_package_says_what(
    tmp_path: Path, files: list[str], message: str, passes: bool
) -> None:
    """When the release is made it is too late to remember."""

    def git(*words: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-b", "main")
    git("commit", "--allow-empty", "-m", "begin")
    git("checkout", "-b", "branch")
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("x\n")
    git("add", "-A")
    git("commit", "-m", message)
    found = subprocess.run(
        ["sh", str(ROOT / ".ci" / "changes"), "main"], cwd=tmp_path, capture_output=True, text=True
    )
    assert passes == (found.returncode == 0), found.stderr
    assert passes or "changes/README.md" in found.stderr
