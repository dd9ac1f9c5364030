"""Reference and diagrams say what the sources say; the first document leads to all others."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GENERATOR = ROOT / "docs" / "reference" / "generate.py"


def test_the_reference_is_up_to_date() -> None:
    """`make reference` writes it anew; a reference of last month misleads."""
    code = (
        f"import json, runpy; found = runpy.run_path({str(GENERATOR)!r})\n"
        "print(json.dumps([{path.name: text for path, text in found['pages']()}, "
        "list(found['HOSTS'])]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=240)
    pages, hosts = json.loads(run.stdout)
    written = {
        path.name: path.read_text("utf-8")
        for path in GENERATOR.parent.glob("*.md")
        if path.name != "README.md"
    }
    for name in hosts:  # Where a package is missing, its page can only be there.
        assert f"{name}.md" in written
        pages.setdefault(f"{name}.md", written[f"{name}.md"])
    assert pages == written


def test_the_diagrams_are_up_to_date() -> None:
    """`make reference` draws them anew; the rooms in them are those of the sources."""
    draw = runpy.run_path(str(ROOT / "docs" / "diagrams" / "draw.py"))
    drawn = {path.name: svg for path, svg in draw["pictures"]()}
    kept = {path.name: path.read_text("utf-8") for path in (ROOT / "docs/diagrams").glob("*.svg")}
    assert drawn == kept


def test_every_document_is_reached_from_the_first() -> None:
    """A reader who starts at docs/README.md finds each of them, in at most two steps."""
    folder = ROOT / "docs"
    first = links_of(folder / "README.md")
    reached = first.union(*(links_of(path) for path in first if path.suffix == ".md"))
    aside = {path for path in folder.rglob("*.md") if path.parent.name == "decisions"}
    documents = {path for path in folder.rglob("*.md") if path != folder / "README.md"}
    assert set() == documents - reached - aside


def links_of(path: Path) -> set[Path]:
    """Return the files that a document links to."""
    targets = re.findall(r"\]\(([^)#\s]+)", path.read_text("utf-8"))
    return {(path.parent / target).resolve() for target in targets}
