"""The reference says what the docstrings say, and the first document leads to all others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GENERATOR = ROOT / "docs" / "reference" / "generate.py"


def test_the_reference_is_up_to_date() -> None:
    """`make reference` writes it anew; a reference of last month misleads."""
    code = (
        f"import json, runpy; pages = runpy.run_path({str(GENERATOR)!r})['pages']()\n"
        "print(json.dumps({path.name: text for path, text in pages}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)
    pages = json.loads(run.stdout)
    written = {path.name: path.read_text("utf-8") for path in GENERATOR.parent.glob("*.md")}
    assert pages == written


def test_every_document_is_reached_from_the_first() -> None:
    """A reader who starts at docs/README.md finds each of them."""
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    folder = ROOT / "docs"
    documents = {str(path.relative_to(folder)) for path in folder.rglob("*.md")}
    listed = {name for name in documents if f"({name})" in index}
    aside = {name for name in documents if name.startswith("decisions/")} | {"README.md"}
    assert set() == documents - listed - aside
