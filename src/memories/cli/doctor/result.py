"""What one look finds."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple


class Level(StrEnum):
    """How much a finding matters."""

    FINE = "ok"
    WARN = "warn"
    BAD = "bad"


class DoctorResult(NamedTuple):
    """One fact, and what to do about it where something is to be done."""

    name: str
    level: Level
    what: str
    advice: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the finding as plain data."""
        return {**self._asdict(), "level": str(self.level)}


def fine(name: str, what: str) -> DoctorResult:
    """Return a finding that asks for nothing."""
    return DoctorResult(name, Level.FINE, what)


def judged(
    name: str, good: bool, what: str, advice: str, *, level: Level = Level.WARN
) -> DoctorResult:
    """Return `what` as fine if it is good, and with advice at `level` if not."""
    return fine(name, what) if good else DoctorResult(name, level, what, advice)
