"""The site: built without a warning, every link leads somewhere, nothing comes from elsewhere."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest
from tests.support.browser import Seen

ROOT = Path(__file__).resolve().parents[2]
PARTS = (
    "sphinx",
    "pydata_sphinx_theme",
    "myst_nb",
    "sphinx_copybutton",
    "matplotlib",
    "h5py",
    "pvlib",
)
MISSING = [part for part in PARTS if importlib.util.find_spec(part) is None]
BUILD_SECONDS = 400

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(600),  # It builds the site.
    pytest.mark.skipif(bool(MISSING), reason=f"the site needs {MISSING} (.ci/venv docs)"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the site, built from the documents as they are, with its notebooks run."""
    place = tmp_path_factory.mktemp("site")
    paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    run = subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going"),
            *("-c", "docs/site", "-d", str(place / "doctrees"), "-D"),
            *(f"nb_execution_cache_path={place / 'notebooks'}", ".", str(place / "html")),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return place / "html"


class Page(HTMLParser):
    """What a page has and where it leads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.parts: set[str] = set()  # Pictures, scripts and styles.
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.add(found["href"])
        elif tag in ("img", "script", "link", "source") and found.get("rel") != "canonical":
            self.parts |= {found[name] for name in ("src", "href") if name in found}


def test_every_link_and_every_picture_leads_somewhere(site: Path) -> None:
    """Across all pages, anchors included; parts of a page come from the site itself."""
    pages = {
        path.resolve(): Page(path)
        for path in site.rglob("*.html")
        if "_static" not in path.parts  # The theme has a template there.
    }
    assert len(pages) > 60
    dead = []
    for path, page in pages.items():
        for target in page.links | page.parts:
            place, anchor = urldefrag(target)
            if place.startswith(("http:", "https:", "mailto:")):
                if target in page.parts:
                    dead.append(f"{path.name}: {target} comes from elsewhere")
                continue
            file = (path.parent / unquote(place.partition("?")[0])).resolve() if place else path
            known = file not in pages or not anchor or unquote(anchor) in pages[file].anchors
            if not file.is_file() or not known:
                dead.append(f"{path.relative_to(site)}: {target}")
    assert [] == sorted(dead)


def test_every_notebook_of_the_gallery_has_its_output(site: Path) -> None:
    """The pictures are those of this build, not a text that says that there is one."""
    names = {path.stem for path in (ROOT / "docs" / "gallery").glob("*.md")} - {"README"}
    pictures = set()
    for name in names:
        text = (site / "docs" / "gallery" / f"{name}.html").read_text("utf-8")
        assert "cell_output" in text, name
        assert "Figure size" not in text, f"{name} shows the name of a picture"
        if "image/png" in text or 'src="../../_images/' in text:
            pictures.add(name)
    assert {"raster", "four-tiers", "miss-ratio", "showing"} == pictures


def test_the_reference_has_types_and_links(site: Path) -> None:
    """A name in a docstring leads to its own entry, and a parameter says its type."""
    text = (site / "docs" / "reference" / "manager.html").read_text("utf-8")
    assert 'href="#memories.MemoryManager.store"' in text
    assert 'id="memories.MigrationSettings"' in text
    assert "high_watermark" in text


SHOWN = (
    "index.html",
    "docs/gallery/raster.html",
    "docs/howto/containers.html",
    "docs/reference/manager.html",
    "docs/benchmarks.html",
    "ARCHITECTURE.html",
)
# How Sphinx marks up a signature of several lines.
SIGNATURE = ("definition-list", "<dl>")


@pytest.fixture(scope="module")
def served(site: Path) -> Iterator[str]:
    """Return where a server on the loopback shows the site."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", SHOWN)
def test_pages_are_accessible_and_load_nothing_from_elsewhere(
    served: str, browser: Any, name: str, scheme: str
) -> None:
    """By axe-core's rules, in light and in dark; no picture is broken."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    try:
        seen = Seen(page, served)
        page.goto(served + name)
        broken = page.evaluate(
            "[...document.images].filter(image => !image.naturalWidth).map(image => image.src)"
        )
        assert [] == broken
        assert [] == seen.wrong  # Before axe asks for styles by paths of its own.
        found = axe.run(page).response["violations"]
        wrong = [(one["id"], one["nodes"][0]["html"][:200]) for one in found]
        assert [] == [(rule, html) for rule, html in wrong if (rule, html) != SIGNATURE]
    finally:
        page.close()


def test_pages_fit_a_narrow_screen(served: str, browser: Any) -> None:
    """Nothing is wider than 390 pixels; tables and code scroll by themselves."""
    page = browser.new_page(viewport={"width": 390, "height": 800})
    try:
        wide = {}
        for name in SHOWN:
            page.goto(served + name)
            wide[name] = page.evaluate("document.documentElement.scrollWidth")
        assert {} == {name: width for name, width in wide.items() if width > 390}
    finally:
        page.close()


def test_the_search_finds_a_page(served: str, browser: Any) -> None:
    """By words that only one page has."""
    page = browser.new_page()
    try:
        page.goto(served + "search.html?q=terminationGracePeriodSeconds")
        page.wait_for_selector("#search-results li a", timeout=60_000)
        assert "Kubernetes" in page.inner_text("#search-results")
    finally:
        page.close()
