"""Warnings name the line of the program that called, and deprecations their end."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memories import __version__
from memories.foundation import warn_caller as module
from memories.foundation.warn_caller import warn_caller, warn_deprecated

ROOT = Path(__file__).resolve().parents[3]


def test_a_deprecation_says_what_to_use_and_when_it_ends() -> None:
    """In the line of the caller, which is where a program shows DeprecationWarnings at all."""
    with pytest.warns(DeprecationWarning) as caught:
        warn_deprecated("MemoryManager.put", instead="store", gone_in="0.4")
    (warning,) = caught
    expected = "MemoryManager.put is deprecated and will be gone in version 0.4: use store"
    assert expected == str(warning.message)
    assert __file__ == warning.filename


def test_frames_of_the_package_are_passed_over() -> None:
    """However deep the call is: a line of ours tells the user nothing."""
    ours = str(Path(module.__file__).parents[1] / "core" / "deep.py")
    names: dict[str, Any] = {"warn_caller": warn_caller}
    exec(compile("def deep():\n    warn_caller('doubtful')\n", ours, "exec"), names)
    with pytest.warns(UserWarning) as caught:
        names["deep"]()
    assert [__file__] == [one.filename for one in caught]


def ends(source: str) -> Iterator[tuple[int, int]]:
    """Yield the minor version in which each deprecated thing of `source` goes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "warn_deprecated":
            (end,) = (word.value for word in node.keywords if word.arg == "gone_in")
            assert isinstance(end, ast.Constant)
            yield minor(end.value)


def minor(version: str) -> tuple[int, int]:
    """Return the first two numbers of a version."""
    first, second = re.match(r"(\d+)\.(\d+)", version).groups()  # type: ignore[union-attr]
    return int(first), int(second)


def test_what_is_deprecated_goes_when_it_was_said() -> None:
    """The release that a warning names must come without it."""
    assert [(0, 4)] == list(ends("warn_deprecated('a', instead='b', gone_in='0.4')"))
    left = [
        path.name
        for path in (ROOT / "src").rglob("*.py")
        for end in ends(path.read_text("utf-8"))
        if end <= minor(__version__)
    ]
    assert [] == left
