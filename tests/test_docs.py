"""The documents tell the truth: their code runs, their links lead somewhere, nothing is left out.

Blocks of one document share their names, in order, like a session; a block is left out only by
`<!--- skip: next "reason" -->` before it.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest import SkipTest

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from tests.support.nodes.patience import patient_clients  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
EXAMPLE_SECONDS = 280
# What documents need that are about other packages, and `pip install` does not bring.
PACKAGES = {
    "cubes": ("zarr", "xarray", "dask"),
    "files": ("fsspec", "pandas"),
    "dask": ("distributed",),
    "joblib": ("joblib", "sklearn"),
    "frameworks": ("dogpile.cache", "django", "langchain_core", "key_value"),
}

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
SOURCE = re.compile(r"`((?:src|tests|docs|examples|benchmarks|days|\.ci)/[\w./-]*)`")


def name_of(path: Path) -> str:
    """Return how a failing test should call a file."""
    return str(path.relative_to(ROOT))


def has_code(path: Path) -> bool:
    """Return whether a document has a block of Python."""
    return "```python" in path.read_text("utf-8")


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if has_code(path)], ids=name_of)
def test_every_block_of_python_in_a_document_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a newcomer copies out of a document must work as it stands."""
    for package in PACKAGES.get(path.stem, ()):
        pytest.importorskip(package, reason=f"{name_of(path)} is about {package}")
    monkeypatch.chdir(tmp_path)
    document = Sybil(parsers=[PythonCodeBlockParser(), SkipParser()]).parse(path)
    for example in document.examples():
        try:
            example.evaluate()
        except SkipTest:
            continue
        except Exception as error:
            error.add_note(f"{name_of(path)}, line {example.line}")
            raise


def test_a_skipped_block_says_why() -> None:
    """A block that never runs may be wrong, so a reader must see why it is skipped."""
    skips = [line for path in DOCUMENTS for line in path.read_text("utf-8").splitlines()]
    skips = [line for line in skips if line.startswith("<!--- skip:")]
    assert [] == [line for line in skips if not re.search(r'skip: next "[^"]{10,}"', line)]


@pytest.mark.parametrize("path", EXAMPLES, ids=name_of)
def test_every_example_runs(path: Path, tmp_path: Path) -> None:
    """An example is the first thing tried, in a directory of the user's own."""
    # Servers of examples may stall like those of tests.
    patiently = ["-m", "tests.support.nodes.patience"] if path.stem == "nodes" else []
    places = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    run = subprocess.run(
        [sys.executable, "-W", "error", *patiently, str(path)],
        cwd=tmp_path,
        env=os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": places},
        capture_output=True,
        text=True,
        timeout=EXAMPLE_SECONDS,
    )
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
    assert "" == run.stderr


def anchors_of(text: str) -> set[str]:
    """Return the anchors that a forge makes of the headings."""
    headings = HEADING.findall(FENCE.sub("", text))
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in kept}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_inside_the_repository_lead_somewhere(path: Path) -> None:
    """A dead link costs every reader a search."""
    dead = []
    for target in LINK.findall(FENCE.sub("", path.read_text("utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        file = (path.parent / place).resolve() if place else path
        known = file.suffix != ".md" or not anchor or anchor in anchors_of(file.read_text("utf-8"))
        if not file.exists() or not known:
            dead.append(target)
    assert [] == dead


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_files_named_in_a_document_exist(path: Path) -> None:
    """A description of the tree that names files of last month misleads."""
    named = SOURCE.findall(FENCE.sub("", path.read_text("utf-8")))
    assert [] == [name for name in named if not (ROOT / name).exists()]


# Errors that the library itself catches, so that no caller sees them.
CAUGHT_INSIDE = {"UnhashableReferenceError"}


def error_classes() -> set[str]:
    """Return every class that is, through its bases, a `MemoriesError`."""
    bases: dict[str, set[str]] = {}
    for path in (ROOT / "src" / "memories").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = {ast.unparse(base).split(".")[-1] for base in node.bases}
    family = {"MemoriesError"}
    while grown := {name for name, above in bases.items() if above & family} - family:
        family |= grown
    return {name for name in family - CAUGHT_INSIDE if not name.startswith("_")}


def test_every_error_is_documented() -> None:
    """A user who sees an error looks it up: what happened, what is still safe, what to do."""
    text = (ROOT / "docs" / "errors.md").read_text("utf-8")
    documented = set(re.findall(r"^### `(\w+)`", text, re.MULTILINE))
    assert error_classes() == documented


def test_every_decision_record_is_listed() -> None:
    """A decision that cannot be found is taken again."""
    records = {path.name for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md")}
    listed = (ROOT / "docs" / "decisions" / "README.md").read_text("utf-8")
    assert set() == {name for name in records if f"({name})" not in listed}


def test_every_room_is_in_the_picture() -> None:
    """ARCHITECTURE.md is where a newcomer learns what the folders and modules are for."""
    package = ROOT / "src" / "memories"
    rooms = {path.stem for path in package.iterdir() if path.suffix == ".py" or path.is_dir()}
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    assert set() == {room for room in rooms if room[0] != "_" and f"`{room}`" not in text}


def numbered_promises(text: str) -> dict[int, str]:
    """Return the bold titles of the promises in a list or a table, by number."""
    found = re.findall(r"^(?:\| )?(\d+)(?:\.| \|) \*\*(.+?)\.?\*\*", text, re.MULTILINE)
    return {int(number): title for number, title in found}


def test_the_promises_have_the_same_numbers_everywhere() -> None:
    """The README, the table of the tests and the names of the files must not drift apart."""
    readme = numbered_promises((ROOT / "README.md").read_text("utf-8"))
    table = (ROOT / "docs" / "testing.md").read_text("utf-8")
    files = {path.name for path in (ROOT / "tests" / "promises").glob("test_*.py")}
    proved = {
        int(number)
        for name in files
        for number in re.findall(r"(?<=_)\d\d(?=_)", name.removesuffix(".py"))
    }
    assert list(range(1, len(readme) + 1)) == list(readme)
    assert readme == numbered_promises(table)
    assert set(readme) == proved
    for number in readme:
        (row,) = re.findall(rf"^\| {number} \|.*$", table, re.MULTILINE)
        own = {name for name in files if f"_{number:02}_" in name}
        assert own == {name for name in files if f"`{name}`" in row}
    assert set() == {name for name in files if f"`{name}`" not in table}


def test_every_folder_of_tests_is_described() -> None:
    """A newcomer looks up in docs/testing.md where a test belongs."""
    text = (ROOT / "docs" / "testing.md").read_text("utf-8")
    tests = ROOT / "tests"
    folders = {f"tests/{path.name}/" for path in tests.iterdir() if any(path.glob("*.py"))}
    files = {f"tests/{path.name}" for path in tests.glob("test_*.py")}
    assert set() == {name for name in folders | files if f"`{name}`" not in text}


def test_names_in_the_architecture_exist() -> None:
    """A flow that names classes of last month leads a newcomer nowhere."""
    text = FENCE.sub("", (ROOT / "ARCHITECTURE.md").read_text("utf-8"))
    code = "\n".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    names = {word for span in re.findall(r"`([\w.]+)`", text) for word in span.split(".")}
    names -= {"npy"}
    missing = {name for name in names if not re.search(rf"\b{name}\b", code)}
    rooms = {path.stem for path in (ROOT / "src").rglob("*")}
    assert set() == missing - rooms


def test_every_make_target_is_described() -> None:
    """`make help` and CONTRIBUTING.md are where a newcomer looks first."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    assert targets == set(re.findall(r"^([a-z][a-z-]*):.*## ", makefile, re.MULTILINE))


def test_each_promise_about_security_names_a_test_that_there_is() -> None:
    """A promise that no test holds any more would be worse than none."""
    text = (ROOT / "SECURITY.md").read_text("utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    missing = [f"{path}::{name}" for path, name in named if name not in functions_of(ROOT / path)]
    assert len(named) > 30
    assert [] == missing
    rows = text[text.index("## What a writer") : text.index("## What is imported")].splitlines()
    table = [row for row in rows if row.startswith("| ") and row != "| promise | test |"]
    assert [] == [row for row in table if "::" not in row]


def functions_of(path: Path) -> set[str]:
    """Return the names of the tests in a file; none if it is not there."""
    if not path.exists():
        return set()
    return {
        node.name
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
