"""A bar for what takes long: on a terminal or in a notebook, and nowhere else.

Whatever takes `progress=` calls it with the bytes done and about how many there will be; this makes
such a callable. A program may pass any other, tqdm's or its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TextIO

from memories.clock import SystemClock
from memories.units import format_size

REFRESH_SECONDS = 0.1
CELLS = 24

Progress = Callable[[int, int], None]


def bar(label: str, stream: TextIO | None = None) -> Progress:
    """Return a progress callable that draws a bar, or nothing where nobody would see one.

    Args:
        label: What is being done.
        stream: The terminal; the standard error if it is None.
    """
    shell = sys.modules.get("IPython")
    kernel = shell.get_ipython() if shell is not None else None
    if stream is None and kernel is not None and hasattr(kernel, "kernel"):
        return _Notebook(label)
    stream = sys.stderr if stream is None else stream
    return _Terminal(label, stream) if stream.isatty() else _nothing


class _Bar:
    """Knows what to say and when; how it is shown is the subclasses'."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._monotonic = SystemClock().monotonic
        self._started_at = self._monotonic()
        self._shown_at = float("-inf")
        self._ended = False

    def __call__(self, done: int, total: int) -> None:
        """Show how far it is; the last call is always shown, and ends the bar."""
        now = self._monotonic()
        ends = done >= total
        if self._ended or (not ends and now - self._shown_at < REFRESH_SECONDS):
            return
        self._shown_at, self._ended = now, ends
        self.show(done, total, self._words(done, total, now - self._started_at), ends)

    def _words(self, done: int, total: int, seconds: float) -> str:
        share = done / total if total else 1.0
        rate = done / seconds if seconds > 0 else 0.0
        left = f", {(total - done) / rate:.0f} s left" if rate and done < total else ""
        return (
            f"{100 * min(share, 1.0):3.0f} %  {format_size(done)} of {format_size(total)}, "
            f"{format_size(rate)}/s{left}"
        )

    def show(self, done: int, total: int, words: str, ends: bool) -> None:
        """Draw it."""
        raise NotImplementedError


class _Terminal(_Bar):
    def __init__(self, label: str, stream: TextIO) -> None:
        super().__init__(label)
        self._stream = stream

    def show(self, done: int, total: int, words: str, ends: bool) -> None:
        filled = min(CELLS, round(CELLS * done / total)) if total else CELLS
        drawn = "█" * filled + "·" * (CELLS - filled)
        self._stream.write(f"\r\x1b[K{self._label}  {drawn}  {words}" + ("\n" if ends else ""))
        self._stream.flush()


class _Notebook(_Bar):
    def __init__(self, label: str) -> None:
        super().__init__(label)
        self._handle: Any = None

    def show(self, done: int, total: int, words: str, ends: bool) -> None:
        from html import escape

        display = sys.modules["IPython"].display
        made = display.HTML(
            f"<label>{escape(self._label)} <progress value='{done}' max='{max(1, total)}'>"
            f"</progress> {escape(words)}</label>"
        )
        if self._handle is None:
            self._handle = display.display(made, display_id=True)
        else:
            self._handle.update(made)


def _nothing(done: int, total: int) -> None:
    """Show nothing."""
