"""The result of one check."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple


class Level(StrEnum):
    """The severity of a result."""

    FINE = "ok"
    WARN = "warn"
    BAD = "bad"


class DoctorResult(NamedTuple):
    """What one check found, with advice if something should be changed."""

    name: str
    level: Level
    what: str
    advice: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return {**self._asdict(), "level": str(self.level)}


def fine(name: str, what: str) -> DoctorResult:
    """Return a result without advice."""
    return DoctorResult(name, Level.FINE, what)


def judged(
    name: str, good: bool, what: str, advice: str, *, level: Level = Level.WARN
) -> DoctorResult:
    """Return `what` as fine if `good`, otherwise at `level` with `advice`."""
    return fine(name, what) if good else DoctorResult(name, level, what, advice)
