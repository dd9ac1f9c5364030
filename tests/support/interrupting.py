"""Ends a call at a chosen line of ours, as an interrupt would; nothing of the library is replaced.

A real signal strikes between two instructions, this at the beginning of a line. Two kinds of line
are left out. A `with` statement is traced once more when its block ends: a signal cannot strike
there, for the interpreter looks for signals after calls and jumps only, and between the last of
these in the block and the release of a lock written in C there is none. And a `try:` in such a
block does nothing, so that neither a signal nor a failure can strike in it; what a tracer raises
there would pass the end of the block by.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import memories

SOURCES = str(Path(memories.__file__).parent)
Trace = Callable[[FrameType, str, Any], Any]


class Interrupter:
    """Counts the lines of ours that a call executes in this thread, and may strike at one.

    `strike` is what a signal handler would do: call something, or give an error to raise. Only the
    lines of files whose paths in the package contain `within` are counted.
    """

    def __init__(
        self, strike: Callable[[], BaseException | None] = KeyboardInterrupt, within: str = ""
    ) -> None:
        self._strike = strike
        self._within = within
        self._left = 0
        self.lines = 0
        self.struck: str | None = None  # Where.
        self.trail: list[str] = []  # Where the lines were.

    def run(self, call: Callable[[], object], at: int = 0) -> bool:
        """Call, and raise at line number `at` (0: nowhere); return whether it ended by that."""
        self.lines, self._left, self.struck = 0, at, None
        self.trail = []
        before = sys.gettrace()
        sys.settrace(self._calls)
        try:
            for _ in isolated(call):
                pass
        except BaseException:
            if self.struck is None:
                raise
            return True
        finally:
            sys.settrace(before)
        return False

    def _calls(self, frame: FrameType, event: str, arg: Any) -> Trace | None:
        path = frame.f_code.co_filename
        if self.struck or not path.startswith(SOURCES) or self._within not in path[len(SOURCES) :]:
            return None
        blocks = _with_blocks(frame.f_code.co_filename)
        previous = frame.f_lineno  # Of a generator that goes on: where it had stopped.

        def lines(frame: FrameType, event: str, arg: Any) -> Trace | None:
            nonlocal previous
            if event != "line" or self.struck:
                return lines
            line, came_from = frame.f_lineno, previous
            previous = line
            if line < came_from <= blocks.get(line, 0) or blocks.get(line) == line:
                return lines  # The end of a block, or a `try:`.
            self.lines += 1
            self.trail.append(f"{frame.f_code.co_filename}:{line}")
            if self.lines == self._left:
                if _in_destructor(frame):
                    self._left += 1  # What is raised there goes nowhere.
                    return lines
                self.struck = f"{frame.f_code.co_filename[len(SOURCES) + 1 :]}:{line}"
                error = self._strike()
                try:
                    if error is not None:
                        raise error
                finally:
                    del error  # It refers to this frame, and all frames below it to what they hold.
            return lines

        return lines


def isolated(call: Callable[[], object]) -> Iterator[None]:
    """Call in a generator, which has an exception state of its own.

    An error that a tracer raises at a `return` inside an `except` block leaves the handled
    exception behind in the thread: it would become the context of all later errors.
    """
    call()
    yield


def _in_destructor(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


def places(trail: Sequence[str]) -> list[int]:
    """Return when each line of a trail was first executed, a second time, and last."""
    when: dict[str, list[int]] = defaultdict(list)
    for number, line in enumerate(trail, 1):
        when[line].append(number)
    return sorted({number for numbers in when.values() for number in (*numbers[:2], numbers[-1])})


@cache
def _with_blocks(path: str) -> dict[int, int]:
    """Return the last line of each `with` statement's block by its first, of a `try:` itself."""
    blocks: dict[int, int] = {}
    for node in ast.walk(ast.parse(Path(path).read_text())):
        if isinstance(node, ast.With):
            blocks[node.lineno] = node.end_lineno or node.lineno
        elif isinstance(node, ast.Try):
            blocks[node.lineno] = node.lineno
    return blocks
