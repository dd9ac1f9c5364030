"""The parts of the demo that can be looked at without running it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from memories.cli.demo.table import BAR_CELLS
from memories.cli.demo.workload import Click, script
from memories.cli.output import usage_bar
from memories.foundation.units import limit_words

from .conftest import Run

PROGRAM = """
    import subprocess, sys
    from memories.cli.demo.memory import peak_rss_bytes
    alone = peak_rss_bytes()
    hungry = "data = bytearray(200_000_000); print('ready', flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", hungry], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    child.stdout.readline()
    assert peak_rss_bytes() > alone + 180_000_000, "a living child"
    child.communicate("\\n")
    assert peak_rss_bytes() > alone + 180_000_000, "a child that has ended"
"""


def test_the_peak_counts_what_was_held_and_let_go() -> None:
    """The figure is the most at any time, not what happens to be left at the end."""
    program = (
        "from memories.cli.demo.memory import peak_rss_bytes\n"
        "before = peak_rss_bytes()\n"
        "assert 100_000_000 == len(b'x' * 100_000_000)\n"
        "assert peak_rss_bytes() > max(before, 90_000_000)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=240)
    assert (0, b"") == (run.returncode, run.stderr)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_the_peak_counts_children_alive_and_gone() -> None:
    """A process tree must not hide its appetite in a child."""
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert (0, "") == (run.returncode, run.stderr)


@pytest.mark.parametrize("percent", [0.0, 0.1, 50.0, 100.0, 130.0])
def test_a_bar_is_always_as_wide(percent: float) -> None:
    """The table must not jump about while it is drawn anew."""
    assert BAR_CELLS == len(usage_bar(percent, BAR_CELLS))


def test_a_tier_without_a_limit_is_said_to_have_none() -> None:
    """Nine exabytes would be a meaningless number."""
    assert ("8.0 MB", "no limit") == (limit_words(8_000_000), limit_words(2**63 - 1))


def test_the_script_clicks_on_pixels_that_are_in_view() -> None:
    """A user requests the time series of visible pixels only."""
    visible: set[object] = set()
    clicks = 0
    for frame in script(16, 32, regions=2, seed=3):
        if any(isinstance(request, Click) for request in frame.requests):
            clicks += 1
            assert all(one.tile in visible for one in frame.requests if isinstance(one, Click))
        else:
            visible = set(frame.requests)
    assert clicks > 20


def test_without_the_raster_the_demo_says_how_to_get_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first command that a newcomer runs must not end in a traceback."""
    monkeypatch.setattr("memories.cli.demo.raster.find_spec", lambda name: None)
    result = run("demo")
    assert (1, "") == (result.exit_code, result.stdout)
    assert "make demo" in result.stderr
    assert "pip install --no-deps pvlib" in result.stderr
