"""Builds the site: `make docs`.

The source is the whole repository, so that a link between two documents is the same link here and
in a forge. The pages of `docs/reference` are written from the docstrings, here with links.
"""

from __future__ import annotations

import os
import re
import runpy
import sys
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

os.environ["MEMORIES_INTERPRETED"] = "1"  # Compiled functions have no types to show.

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

from memories import __version__  # noqa: E402

project = "memories"
author = "The memories founders"
copyright = "The memories founders"  # Sphinx gives it this name.
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
root_doc = "docs/README"
include_patterns = ["[A-Z]*.md", "changes/README.md", "docs/**"]
exclude_patterns = ["README.md", "docs/site/**", "**/.ipynb_checkpoints"]
nitpicky = False

# Markdown: anchors as a forge makes them, so that one link is right in both places.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "attrs_inline"]
suppress_warnings = ["toc.not_included"]  # `tests/test_reference.py` asks that each is reached.

# Notebooks are text; they run when the site is built, and a cell that fails ends the build.
nb_execution_mode = "cache"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_execution_cache_path = str(ROOT / ".docs" / "notebooks")
# The kernels warn that they talk over TCP, which here is the loopback.
_profile = ROOT / ".docs" / "ipython" / "profile_default"
_profile.mkdir(parents=True, exist_ok=True)
(_profile / "ipython_kernel_config.py").write_text("c.IPKernelApp.log_level = 40\n", "utf-8")
os.environ["IPYTHONDIR"] = str(_profile.parent)

# The reference: types in the description, and names in docstrings as links where they are public.
default_role = "py:obj"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "alphabetical"
autodoc_class_signature = "mixed"
autodoc_inherit_docstrings = True
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "pydata_sphinx_theme"
html_title = f"memories {release}"
html_static_path = ["static", "../diagrams/tiers.svg"]
templates_path = ["templates"]
html_favicon = "static/icon.svg"
html_css_files = ["memories.css"]
html_additional_pages = {"index": "landing.html"}
html_copy_source = False
html_show_sourcelink = False
html_theme_options: dict[str, Any] = {
    "logo": {
        "text": "memories",
        "image_light": "static/icon.svg",
        "image_dark": "static/icon.svg",
        "alt_text": "",
    },
    "navigation_depth": 2,
    "collapse_navigation": True,
    "show_toc_level": 2,
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "search_as_you_type": True,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}

html_context: dict[str, Any] = {
    "default_mode": "auto",
    "landing_cards": [
        ("Tutorial", "docs/tutorial.html", "The whole interface in ten minutes."),
        (
            "Gallery",
            "docs/gallery/README.html",
            "Notebooks with their pictures, run for this site.",
        ),
        ("How-to guides", "docs/howto/README.html", "One task each, from sizes to Kubernetes."),
        ("Reference", "docs/reference/README.html", "Every name, type, error and byte."),
        ("Explanation", "docs/explanation.html", "How it works, and what was measured."),
    ],
}

REFERENCE = runpy.run_path(str(ROOT / "docs" / "reference" / "generate.py"))["TOPICS"]
INDEXES = {
    "docs/README", "docs/gallery/README", "docs/howto/README", "docs/reference/README",
    "docs/explanation", "docs/decisions/README",
}  # fmt: skip
LINK = re.compile(r"\]\(([^)#\s]+\.md)\)")
BACKTICKS = re.compile(r"(?<![`:])`([^`]+)`(?!`)")


def prepare(app: Any, docname: str, source: list[str]) -> None:
    """Change what only the site needs to be different in a document."""
    folder, _, name = docname.rpartition("/")
    if docname in INDEXES:
        source[0] += navigation(docname, source[0])
    elif folder == "docs/reference" and name in REFERENCE:
        source[0] = reference(*REFERENCE[name])


def navigation(docname: str, text: str) -> str:
    """Return a hidden tree of the documents that the lists of an index name, in their order."""
    lists = "\n".join(line for line in text.splitlines() if line.startswith(("- ", "| [")))
    targets = [target for target in LINK.findall(lists) if not target.startswith("http")]
    return "\n\n```{toctree}\n:hidden:\n\n" + "\n".join(dict.fromkeys(targets)) + "\n```\n"


def reference(title: str, things: list[str]) -> str:
    """Return a page of the reference that autodoc fills: the repository keeps one of plain text."""
    blocks = [f"# {title}"]
    for thing in things:
        module, _, member = thing.partition(":")
        is_class = isinstance(getattr(import_module(module), member), type)
        directive = f".. auto{'class' if is_class else 'function'}:: {module}.{member}"
        if is_class:
            directive += "\n   :members:\n   :inherited-members: object,dict,tuple,MutableMapping"
        blocks.append(f"## {member}\n\n```{{eval-rst}}\n{directive}\n```")
    return "\n\n".join(blocks) + "\n"


def plain_code(app: Any, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Leave names in backticks as they are, and show everything else in them as code."""
    for number, line in enumerate(lines):
        lines[number] = BACKTICKS.sub(
            lambda hit: hit[0] if re.fullmatch(r"[\w.]+", hit[1]) else f"``{hit[1]}``", line
        )


def landing(app: Any, pagename: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Fill the first page with the example and the promises of the README."""
    if pagename != "index":
        return
    readme = (ROOT / "README.md").read_text("utf-8")
    example = readme.partition("```python\n")[2].partition("```")[0]
    promises = readme.partition("It makes twelve promises")[2].partition("## ")[0]
    context["landing_code"] = highlight(example, PythonLexer(), HtmlFormatter())
    titles = re.findall(r"^\d+\. \*\*(.+?)\*\*", promises, re.MULTILINE)
    items = "".join(f"<li>{escape(title)}</li>" for title in titles)
    context["landing_promises"] = f"<ol>{items}</ol>"


def setup(app: Any) -> dict[str, bool]:
    """Tell Sphinx what is ours."""
    app.connect("source-read", prepare)
    app.connect("html-page-context", landing)
    app.connect("autodoc-process-docstring", plain_code, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
