"""The interface through which a dashboard gets its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class DashboardSource(Protocol):
    """The data of a dashboard. Methods are called from any thread and MUST NOT take long."""

    def document(self) -> Mapping[str, Any]:
        """Return the current state, as `MemoryManager.telemetry()` does."""

    def series(self) -> Mapping[str, list[float]] | None:
        """Return the series so far, None while the analytics are off."""

    def explain(self, key: str) -> Mapping[str, Any]:
        """Return an explanation of `key` with a `text`; KeyNotFoundError if it is absent."""

    def act(self, action: str, key: str) -> str:
        """Apply one of `ACTIONS` to `key` and return its tier afterwards."""


ACTIONS = ("promote", "demote", "pin", "unpin")
