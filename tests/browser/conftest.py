"""A real browser, where there is one; these tests say so and skip where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Return a headless Chromium: the system's, or the one that playwright has installed.

    Ended with its module: the event loop that drives it would be in the way of other tests'.
    """
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    with api.sync_playwright() as playwright:
        try:
            # Without a sandbox: it needs rights that root in a container does not have.
            launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except api.Error as error:
            pytest.skip(
                f"no Chromium can be started here (apt-get install chromium): {error}"[:200]
            )
        yield launched
        launched.close()
