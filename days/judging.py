"""What a day is made of: programs that ran, bars, and the judgement over both.

A day is a module of this folder with a `judge(scale, folder)`. It runs our program and its twins,
raises `AssertionError` where their answers differ, and returns what they took.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Scale(Enum):
    """How large a day is: for the tests (seconds), or as it is measured (a minute or two)."""

    SMALL = "small"
    FULL = "full"


@dataclass(frozen=True)
class Run:
    """One program, run in a process of its own.

    Attributes:
        answer: What the program returned.
        seconds: Wall time of the program, without the start of its process.
        cpu_seconds: Processor time of all its threads.
        peak_rss: Most bytes of RAM that its process held at once, over what it held at the start.
        disk: Bytes in the program's folder afterwards.
    """

    program: str
    answer: Any
    seconds: float
    cpu_seconds: float
    peak_rss: int
    disk: int


@dataclass(frozen=True)
class Bar:
    """A limit, and what was measured.

    Attributes:
        counted: Whether the value is a count, or bytes, and the same on every machine: the tests
            ask for it. Seconds are shown only.
        floor: What the least program with our promises reaches (`days.floor`), where one ran.
    """

    text: str
    value: float
    at_most: float
    counted: bool = False
    floor: float | None = None

    @property
    def met(self) -> bool:
        """Return whether the value keeps the limit."""
        return self.value <= self.at_most

    @property
    def reachable(self) -> bool:
        """Return whether the least program keeps the limit, or none ran."""
        return self.floor is None or self.floor <= self.at_most


@dataclass
class Judgement:
    """What one day took, and which bars it met.

    Attributes:
        facts: Other figures by name: hits, requests, bytes moved.
        absent: The twins that did not run, each with the reason.
    """

    title: str
    runs: Mapping[str, Run]
    bars: list[Bar]
    facts: dict[str, float] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
