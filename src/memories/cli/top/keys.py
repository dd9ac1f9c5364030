"""The view of `top`: sort order, filter and pause, and the keys that change it.

`Keyboard` reads single keys from a terminal and restores its settings afterwards.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

SORTS = ("rate", "hits", "size", "key")
HELP = "s sort · / filter · Esc clear · p pause · ? help · q quit"


@dataclass(slots=True)
class TopView:
    """The settings of the view."""

    sort: str = "rate"
    pattern: str = ""
    typing: bool = False
    paused: bool = False
    helping: bool = False
    ended: bool = False

    def press(self, key: str) -> None:
        """Apply one key press."""
        if self.typing:
            self._type(key)
        elif key in ("q", "\x03", "\x04"):
            self.ended = True
        elif key == "s":
            self.sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]
        elif key == "/":
            self.typing, self.pattern = True, ""
        elif key == "\x1b":
            self.pattern, self.helping = "", False
        elif key == "p":
            self.paused = not self.paused
        elif key == "?":
            self.helping = not self.helping

    def choose(self, keys: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return the keys that pass the filter, in the chosen order."""
        found = [one for one in keys if self.pattern in one["key"]]
        return sorted(found, key=lambda one: one[self.sort], reverse=self.sort != "key")

    def _type(self, key: str) -> None:
        if key in ("\r", "\n"):
            self.typing = False
        elif key == "\x1b":
            self.typing, self.pattern = False, ""
        elif key in ("\x7f", "\b"):
            self.pattern = self.pattern[:-1]
        elif key.isprintable():
            self.pattern += key


class Keyboard:
    """Single keys from the standard input; a context manager that restores the terminal."""

    def __init__(self) -> None:
        self._descriptor = sys.stdin.fileno()
        self._before: Any = None

    def __enter__(self) -> Keyboard:
        if os.isatty(self._descriptor):
            import termios
            import tty

            self._before = termios.tcgetattr(self._descriptor)
            tty.setcbreak(self._descriptor)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._before is not None:
            import termios

            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    def read(self, seconds: float) -> str:
        """Return the keys pressed within `seconds`, an empty string without any."""
        if self._before is None:
            select.select([], [], [], seconds)
            return ""
        ready, _, _ = select.select([self._descriptor], [], [], seconds)
        return os.read(self._descriptor, 64).decode("utf-8", "replace") if ready else ""
