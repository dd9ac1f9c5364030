"""Progress bars for long operations, on a terminal or in a notebook.

A method with a `progress=` argument takes True for a bar, a function of the amount done and the
estimated total (mostly in bytes), or what counts as tqdm does: an object or its class.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Protocol, Self, TextIO, runtime_checkable

from memories.errors import InvalidOptionTypeError
from memories.foundation.clock import SystemClock
from memories.foundation.fork_lock import new_lock
from memories.foundation.units import format_size

__all__ = ["bar"]

REFRESH_SECONDS = 0.1
PATIENCE_SECONDS = 1.0
CELLS = 24
LABEL_LENGTH = 30

Progress = Callable[[int, int], object]  # The amount done, and the estimated total.
Step = Callable[[int], object]  # The amount done since the last call.


@runtime_checkable
class Meter(Protocol):
    """What counts by steps towards a total, as tqdm does."""

    total: Any

    def update(self, n: int, /) -> object:
        """Count `n` more."""


ProgressChoice = bool | Progress | Meter | type[Meter] | None


class Bar:
    """Decides when to show progress, and with which text. This class itself draws nothing.

    Used as a context manager, it ends the line that it has drawn, also after an error.
    """

    def __init__(
        self,
        label: str,
        patience_seconds: float = 0.0,
        written: Callable[[float], str] = format_size,
    ) -> None:
        self._label = label
        self._written = written
        self._monotonic = SystemClock().monotonic
        self._started_at = self._monotonic()
        self._due_at = self._started_at + patience_seconds
        self._shown_at = float("-inf")
        self._drawn = False  # Whether there is an unfinished line.
        self._ended = False

    def __call__(self, done: int, total: int) -> None:
        """Show the progress; the last call is always shown, and ends the bar."""
        now = self._monotonic()
        ends = done >= total
        waits = now < self._due_at or (not ends and now - self._shown_at < REFRESH_SECONDS)
        if not self._ended and not waits:
            self._shown_at, self._drawn = now, not ends
            self.show(done, total, self._words(done, total, now - self._started_at), ends)
        self._ended |= ends

    def _words(self, done: int, total: int, seconds: float) -> str:
        share = done / total if total else 1.0
        rate = done / seconds if seconds > 0 else 0.0
        left = f", {(total - done) / rate:.0f} s left" if rate and done < total else ""
        return (
            f"{100 * min(share, 1.0):3.0f} %  {self._written(done)} of {self._written(total)}, "
            f"{self._written(rate)}/s{left}"
        )

    def show(self, done: int, total: int, words: str, ends: bool) -> None:
        """Draw the bar."""

    def end_line(self) -> None:
        """End an unfinished line, before something else is printed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._drawn:
            self.end_line()
        self._ended, self._drawn = True, False


def bar(
    label: str,
    stream: TextIO | None = None,
    *,
    patience_seconds: float = 0.0,
    written: Callable[[float], str] | None = None,
) -> Bar:
    """Return a progress callable that draws a bar, or draws nothing without a terminal.

    Args:
        label: The name of the operation.
        stream: The terminal; the standard error if it is None.
        patience_seconds: An operation that takes no longer than this shows no bar.
        written: Formats an amount; by default as bytes.
    """
    written = written or format_size
    shell = sys.modules.get("IPython")
    kernel = shell.get_ipython() if shell is not None else None
    if stream is None and kernel is not None and hasattr(kernel, "kernel"):
        return _Notebook(label, patience_seconds, written)
    stream = sys.stderr if stream is None else stream
    if stream is None or not stream.isatty():
        return Bar(label, patience_seconds, written)
    return _Terminal(stream, label, patience_seconds, written)


def chosen(
    progress: ProgressChoice, label: str, written: Callable[[float], str] | None = None
) -> Progress | None:
    """Return the function that an operation calls for the `progress=` that its caller gave.

    Raises:
        InvalidOptionTypeError: it is none of what may be given.
    """
    if progress is None or progress is False:
        return None
    if progress is True:
        return bar(label, written=written)
    if isinstance(progress, type) and hasattr(progress, "update"):
        return _metered(lambda total: progress(total=total, desc=label, unit_scale=True))
    if isinstance(progress, Meter):
        return _metered(lambda total: progress)
    if callable(progress):
        return progress
    raise InvalidOptionTypeError(
        f"progress={progress!r:.60} must be True, a function of the amount done and the total, "
        "or a bar of tqdm"
    )


def _metered(start: Callable[[int], Meter]) -> Progress:
    """Return a function that moves a meter on, which it starts at its first call."""
    meter: Meter | None = None
    counted_so_far = 0

    def show(done: int, total: int) -> None:
        nonlocal meter, counted_so_far
        if meter is None:
            meter = start(total)
        meter.total = total
        meter.update(done - counted_so_far)
        counted_so_far = done

    return show


class Bars:
    """A bar for each of several transfers, by key. Safe to use from any number of threads.

    A transfer that takes less than a second is not shown.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._lock = new_lock()
        self._bars: dict[str, Bar] = {}

    def __call__(self, key: str, done: int, total: int) -> None:
        """Show that `done` of `total` bytes of `key` have been transferred."""
        with self._lock:
            one = self._bars.pop(key, None) or bar(
                _short(key), self._stream, patience_seconds=PATIENCE_SECONDS
            )
            if done < total:
                self._bars[key] = one
            one(done, total)


def counted(progress: Progress | None, total: int) -> Step | None:
    """Return a callable that adds up steps and calls `progress` with the sum."""
    if progress is None:
        return None
    done = 0

    def advance(step: int) -> None:
        nonlocal done
        done += step
        progress(done, max(done, total))

    return advance


def skip(step: int) -> None:
    """Ignore a step, for callers without progress."""


class _Terminal(Bar):
    def __init__(self, stream: TextIO, *how: Any) -> None:
        super().__init__(*how)
        self._stream = stream

    def show(self, done: int, total: int, words: str, ends: bool) -> None:
        filled = min(CELLS, round(CELLS * done / total)) if total else CELLS
        drawn = "█" * filled + "·" * (CELLS - filled)
        self._stream.write(f"\r\x1b[K{self._label}  {drawn}  {words}" + ("\n" if ends else ""))
        self._stream.flush()

    def end_line(self) -> None:
        self._stream.write("\n")
        self._stream.flush()


class _Notebook(Bar):
    _handle: Any = None

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


def _short(key: str) -> str:
    name = ascii(key)[1:-1]
    half = LABEL_LENGTH // 2 - 1
    return name if len(name) <= LABEL_LENGTH else f"{name[:half]}..{name[-half:]}"
