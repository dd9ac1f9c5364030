"""The progress bar: where somebody looks, and only there."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from memories import MemoryManager
from memories.progress import bar


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def test_a_pipe_gets_no_bar() -> None:
    """A log file full of carriage returns helps nobody."""
    stream = io.StringIO()
    show = bar("snapshot", stream)
    for done in range(101):
        show(done, 100)
    assert "" == stream.getvalue()


def test_a_terminal_gets_a_line_that_ends() -> None:
    """Drawn seldom, and always at the end; a call after the end is not drawn."""
    stream = Terminal()
    show = bar("snapshot", stream)
    for done in range(10_001):
        show(done * 1000, 10_000_000)
    show(10_000_000, 10_000_000)
    text = stream.getvalue()
    assert text.endswith("\n")
    assert 1 == text.count("\n")
    assert text.count("\r") < 50
    assert "100 %  10.0 MB of 10.0 MB" in text


def test_nothing_to_do_is_done() -> None:
    """An empty store has a total of 0."""
    stream = Terminal()
    bar("check", stream)(0, 0)
    assert "100 %" in stream.getvalue()


def test_a_snapshot_takes_it(tmp_path: Path) -> None:
    """As does whatever has `progress=`."""
    stream = Terminal()
    with MemoryManager(1, 1, 1) as manager:
        manager.store("a", np.arange(1_000_000))
        manager.create_snapshot(tmp_path / "s", progress=bar("snapshot", stream))
    assert "snapshot" in stream.getvalue()


def test_a_notebook_gets_one_element_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a line for each update."""
    shown: list[str] = []
    handle = SimpleNamespace(update=shown.append)

    def display(made: str, display_id: bool) -> Any:
        shown.append(made)
        return handle

    module = SimpleNamespace(
        get_ipython=lambda: SimpleNamespace(kernel=1),
        display=SimpleNamespace(HTML=str, display=display),
    )
    monkeypatch.setitem(sys.modules, "IPython", module)
    show = bar("<restore>")
    show(0, 10)
    show(10, 10)
    assert 2 == len(shown)
    assert "&lt;restore&gt;" in shown[0]
    assert "value='10' max='10'" in shown[1]
