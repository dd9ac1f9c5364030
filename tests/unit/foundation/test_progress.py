"""The progress bar: on a terminal or in a notebook, and nowhere else."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from memories import InvalidOptionTypeError, MemoryManager
from memories.progress import Bars, bar


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def test_a_pipe_gets_no_bar() -> None:
    """A log file full of carriage returns is useless."""
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
    """Updates do not each write a line."""
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


def test_work_that_fails_leaves_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The words about the failure stand on a line of their own, and nothing is drawn after them."""
    stream = Terminal()
    with pytest.raises(ValueError, match="no"), bar("check", stream) as show:
        show(1, 10)
        raise ValueError("no")
    show(10, 10)
    assert stream.getvalue().endswith("\n")
    assert "100 %" not in stream.getvalue()
    with bar("check", Terminal()) as show:
        show(10, 10)


def test_a_short_transfer_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of them would be thousands of lines."""
    stream = Terminal()
    transfers = Bars(stream)
    transfers("k", 1, 100)
    transfers("k", 100, 100)
    assert "" == stream.getvalue()
    monkeypatch.setattr("memories.progress.PATIENCE_SECONDS", 0.0)
    transfers("tile\x1b/" + "7" * 99, 50_000_000, 100_000_000)
    transfers("other", 100, 100)
    transfers("tile\x1b/" + "7" * 99, 100_000_000, 100_000_000)
    text = stream.getvalue().replace("\r\x1b[K", "|")
    assert "\x1b" not in text
    assert "50 %  50.0 MB of 100.0 MB" in text
    assert 2 == text.count("\n")
    assert 3 == text.count("|")


@pytest.mark.parametrize("repair", [False, True])
def test_a_check_says_how_far_it_is(tmp_path: Path, repair: bool) -> None:
    """In bytes of values, of every durable tier, up to all of them."""
    reported: list[tuple[int, int]] = []
    with MemoryManager(1, 1, 1, True, storage_path=tmp_path / "s", migration=False) as manager:
        for number in range(5):
            manager.store(f"cold/{number}", np.random.default_rng(number).bytes(50_000), "cold")
        manager.store("far", np.random.default_rng(9).bytes(100_000), "glacier")
        manager.flush()
        assert [] == manager.check(repair, progress=lambda *one: reported.append(one))
    done, totals = zip(*reported, strict=True)
    assert 1 == len(set(totals))
    assert 350_000 <= totals[0] < 355_000
    assert sorted(done) == list(done)
    assert totals[-1] == done[-1]
    assert 6 < len(reported)
    assert any(200_000 < one < 300_000 for one in done)


class Tqdm:
    """What tqdm does with its arguments and steps."""

    made: list[Tqdm] = []

    def __init__(self, total: int | None = None, desc: str = "", unit_scale: bool = False) -> None:
        self.total, self.desc, self.n = total, desc, 0
        Tqdm.made.append(self)

    def update(self, n: int) -> None:
        """Count more."""
        self.n += n


@pytest.mark.parametrize("kind", ["class", "object", "tqdm"])
def test_what_counts_as_tqdm_does_is_moved_on(kind: str, tmp_path: Path) -> None:
    """Given as an object or as its class; at the end it has counted the whole total."""
    if kind == "tqdm":
        tqdm = pytest.importorskip("tqdm").tqdm
        given = meter = tqdm(file=io.StringIO())
    else:
        Tqdm.made = []
        given = Tqdm if kind == "class" else Tqdm()
    with MemoryManager(0.01, 0.01, 0.1, storage_path=tmp_path / "s") as manager:
        for number in range(10):
            manager.store(f"key/{number}", np.arange(1000) + number)
        manager.create_snapshot(tmp_path / "x.bin", progress=given)
    if kind != "tqdm":
        (meter,) = Tqdm.made
    assert meter.n == meter.total > 80_000
    if kind == "class":
        assert "create_snapshot" == meter.desc


def test_true_draws_a_bar_and_anything_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is written."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with MemoryManager(0.01, 0.01, 0.1, storage_path=tmp_path / "s") as manager:
        manager["a"] = np.arange(1000)
        manager.create_snapshot(tmp_path / "x.bin", progress=True)
        assert "create_snapshot" in terminal.getvalue()
        manager.create_snapshot(tmp_path / "x.bin", progress=False)
        with pytest.raises(InvalidOptionTypeError, match="progress='yes' must be True"):
            manager.create_snapshot(tmp_path / "y.bin", progress="yes")  # type: ignore[arg-type]
    assert not (tmp_path / "y.bin").exists()
