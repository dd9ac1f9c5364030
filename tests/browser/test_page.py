"""The dashboard in a real browser: its display, its accessibility and its keyboard control."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.browser import Seen

from memories import MemoryManager
from memories.observe.dashboard import Dashboard

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=alert(1)>"
WAIT = 60_000  # Milliseconds.


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[MemoryManager]:
    """Return a manager that has moved things about."""
    with MemoryManager(
        "40MB", "40MB", 1, True, storage_path=tmp_path / "s", migration=False, prefetch="off"
    ) as made:
        for number in range(12):
            made.store(f"tile/{number}", np.full(250_000, number, dtype=np.float64), tier="warm")
        made.store(HOSTILE, 1, tier="warm")
        for _ in range(30):
            made.retrieve("tile/7")
            made.retrieve(HOSTILE)
        made.migrate("tile/1", "cold")
        made.migrate("tile/2", "glacier")
        yield made


def opened(browser: Any, served: Dashboard, **options: Any) -> tuple[Any, Seen]:
    """Return the page once it shows the tiers, and what it did."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000}, **options)
    seen = Seen(page, served.url.partition("#")[0])
    page.goto(served.url)
    page.wait_for_selector("#tier-rows tr", timeout=WAIT)
    return page, seen


def contrast(page: Any, selector: str) -> float:
    """Return the contrast of an element's text with the ground behind it, by the WCAG's formula."""
    ratio = page.evaluate(
        """(selector) => {
          const channels = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
          const light = (colour) => { const [r, g, b] = channels(colour).map((value) => {
            value /= 255;
            return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4; });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
          let element = document.querySelector(selector), ground = null;
          const ink = getComputedStyle(element).color;
          for (; element; element = element.parentElement) {
            ground = getComputedStyle(element).backgroundColor;
            if (!ground.endsWith(', 0)')) break;
          }
          const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x);
          return (a + 0.05) / (b + 0.05);
        }""",
        selector,
    )
    return float(ratio)


def test_it_shows_what_the_manager_holds(browser: Any, manager: MemoryManager) -> None:
    """Tiers, keys, moves and latencies; nothing leaves the machine, and the console is empty."""
    with manager.dashboard() as served:
        page, seen = opened(browser, served)
        page.wait_for_selector("#usage canvas", timeout=WAIT)
        rows = page.locator("#tier-rows tr").all_inner_texts()
        assert ["hot", "warm", "cold", "glacier"] == [row.split()[0] for row in rows]
        assert "no limit" in rows[3]
        hot = page.locator("#hot-rows tr").all_inner_texts()
        assert any("tile/7" in row and "30" in row for row in hot)
        moves = page.locator("#move-rows").inner_text()
        assert "warm → cold" in moves
        assert "explicit" in moves
        assert "write" in page.locator("#latency-rows").inner_text()
        assert f"open, pid {os.getpid()}" in page.locator("#state").inner_text()
        assert [] == seen.wrong
        page.close()


def test_the_charts_begin_before_the_page_was_opened(browser: Any, manager: MemoryManager) -> None:
    """With the series so far, for the range that is chosen; glacier is in them, too."""
    manager.enable_analytics(interval=0.05)
    for _ in range(20):
        manager.retrieve("tile/7")
        manager.retrieve("tile/2")
    with manager.dashboard() as served:
        page, seen = opened(browser, served)
        page.wait_for_selector("#held canvas", timeout=WAIT)
        first, last = page.evaluate("() => [points.at[0], points.at.at(-1)]")
        assert manager.telemetry()["analytics_began"] - 1 < first < last
        assert "glacier" in str(page.get_attribute("#held", "aria-label"))
        assert "glacier" in str(page.get_attribute("#reads", "aria-label"))
        page.select_option("#range", "60")
        page.wait_for_function(
            "() => charts[0].plot.scales.x.max - charts[0].plot.scales.x.min <= 60", timeout=WAIT
        )
        assert [] == seen.wrong
        page.close()


def test_it_says_which_store_it_shows(browser: Any, manager: MemoryManager) -> None:
    """A user with six of these pages open finds the right one."""
    with manager.dashboard() as served:
        page, _ = opened(browser, served)
        page.wait_for_function("() => document.title === 's · memories'", timeout=WAIT)
        assert "s" == page.inner_text("#store")
        page.close()


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_is_wider_than_the_window(browser: Any, manager: MemoryManager, width: int) -> None:
    """A page that moves sideways cannot be read on a telephone."""
    manager.store("a/very/long/key/" + "x" * 180, b"x" * 1000, tier="warm", pin=True)
    for _ in range(500):
        manager.retrieve("a/very/long/key/" + "x" * 180)
    with manager.dashboard(token="t") as served:
        page, _ = opened(browser, served)
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_selector("#pin-rows tr", timeout=WAIT)
        page.wait_for_selector("#held canvas", timeout=WAIT)
        page.wait_for_timeout(500)  # For the charts to take their new width.
        page.wait_for_function(
            f"() => document.documentElement.scrollWidth <= {width}", timeout=WAIT
        )
        page.close()


def test_it_is_live(browser: Any, manager: MemoryManager) -> None:
    """What happens is seen without a reload, until one pauses it."""
    with manager.dashboard() as served:
        page, _ = opened(browser, served)
        manager.store("new/key", b"x" * 100_000, tier="hot")
        for _ in range(500):
            manager.retrieve("new/key")
        page.wait_for_selector("#hot-rows >> text=new/key", timeout=WAIT)
        page.click("#pause")
        assert "true" == page.get_attribute("#pause", "aria-pressed")
        before = page.locator("#tier-rows").inner_text()
        for _ in range(500):
            manager.retrieve("new/key")
        page.wait_for_timeout(1200)
        assert before == page.locator("#tier-rows").inner_text()
        page.close()


def test_a_key_is_text_and_never_markup(browser: Any, manager: MemoryManager) -> None:
    """The name of a key must not run code in the browser."""
    with manager.dashboard() as served:
        page, seen = opened(browser, served)
        page.wait_for_selector(f'#hot-rows >> text="{HOSTILE}"', timeout=WAIT)
        page.locator("#hot-rows button", has_text="onerror").click()
        page.wait_for_selector("#explanation >> text=is in warm", timeout=WAIT)
        assert 0 == page.locator("img").count()
        assert [] == seen.wrong
        page.close()


def test_it_is_used_by_the_keyboard_alone(browser: Any, manager: MemoryManager) -> None:
    """Every control is reached by Tab, shows that it has the focus, and keeps it while live."""
    with manager.dashboard() as served:
        page, _ = opened(browser, served)
        page.wait_for_selector("#hot-rows button", timeout=WAIT)
        reached = []
        for _ in range(60):
            page.keyboard.press("Tab")
            found = page.evaluate(
                "() => [document.activeElement.id || document.activeElement.textContent,"
                " getComputedStyle(document.activeElement).outlineStyle]"
            )
            reached.append(found)
            if found[0] == "key":
                break
        names = [name for name, _ in reached]
        assert {"pause", "key"} <= set(names)
        assert {"solid"} == {outline for _, outline in reached}
        page.keyboard.type("tile/7")
        page.keyboard.press("Enter")
        page.wait_for_selector("#explanation >> text=tile/7", timeout=WAIT)
        page.focus("#hot-rows button")
        key = page.evaluate("() => document.activeElement.dataset.key")
        page.wait_for_timeout(1500)
        assert key == page.evaluate("() => document.activeElement.dataset.key")
        page.close()


def test_with_a_token_a_value_can_be_moved(browser: Any, manager: MemoryManager) -> None:
    """And without one there is no such button."""
    with manager.dashboard() as served:
        page, _ = opened(browser, served)
        page.fill("#key", "tile/7")
        page.keyboard.press("Enter")
        page.wait_for_selector("#explanation >> text=tile/7", timeout=WAIT)
        assert not page.is_visible("#actions")
        page.close()
    with manager.dashboard(token="a b&c") as served:
        page, seen = opened(browser, served)
        page.fill("#key", "tile/7")
        page.keyboard.press("Enter")
        page.click("text=Demote", timeout=WAIT)
        page.wait_for_selector("#explanation >> text=is in cold", timeout=WAIT)
        assert "cold" == manager.get_tier("tile/7")
        assert [] == seen.wrong
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible(browser: Any, manager: MemoryManager, scheme: str) -> None:
    """By axe-core's rules, in light and in dark, and with contrast computed here besides."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    with manager.dashboard(token="t") as served:
        page, _ = opened(browser, served, color_scheme=scheme, bypass_csp=True)
        page.fill("#key", "tile/7")
        page.keyboard.press("Enter")
        page.wait_for_selector("#actions:visible", timeout=WAIT)
        result = axe.run(page)
        found = [(one["id"], one["impact"]) for one in result.response["violations"]]
        assert [] == found, result.generate_report()
        for selector in ("#state", "thead th", "td.key button", "#explanation", "#pause", ".note"):
            assert contrast(page, selector) >= 4.5, selector
        page.close()


def test_a_closed_manager_is_said_to_be_closed(browser: Any, manager: MemoryManager) -> None:
    """The last figures stay, with the word that they are the last."""
    with manager.dashboard() as served:
        page, _ = opened(browser, served)
        manager.cleanup()
        page.wait_for_function(
            "() => /closed|not connected/.test(document.querySelector('#state').textContent)",
            timeout=WAIT,
        )
        assert 4 == page.locator("#tier-rows tr").count()
        page.close()


def test_the_report_needs_nothing_else(
    browser: Any, manager: MemoryManager, tmp_path: Path
) -> None:
    """One file, no script, no request, accessible."""
    manager.enable_analytics(interval=0.02)
    for _ in range(100):
        manager.retrieve("tile/7")
        manager.retrieve("tile/8")
    manager.report(tmp_path / "report.html")
    page = browser.new_page()
    url = (tmp_path / "report.html").as_uri()
    seen = Seen(page, url)
    page.goto(url)
    assert 0 == page.locator("script").count()
    titles = page.locator("h2").all_inner_texts()
    assert {"Bytes held", "Reads/s, by the tier that answered", "Configuration"} <= set(titles)
    assert page.locator("svg").count() == page.locator(".charts section").count()
    assert "tile/7" in page.inner_text("main")
    assert 0 == page.locator("img").count()
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    assert [] == [one["id"] for one in axe.run(page).response["violations"]]
    assert [] == seen.wrong
    page.close()
