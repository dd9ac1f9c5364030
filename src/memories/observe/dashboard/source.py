"""What a dashboard asks, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class DashboardSource(Protocol):
    """Answers a dashboard. Every method may be called from any thread, and MUST NOT take long."""

    def document(self) -> Mapping[str, Any]:
        """Return what is known now, as the document of `MemoryManager.telemetry()`."""

    def series(self) -> Mapping[str, list[float]] | None:
        """Return the series so far, None if nobody samples."""

    def explain(self, key: str) -> Mapping[str, Any]:
        """Return what is known of `key`, `text` among it; KeyNotFoundError if it is absent."""

    def act(self, action: str, key: str) -> str:
        """Do one of `ACTIONS` to `key` and return the tier it is in then."""


ACTIONS = ("promote", "demote", "pin", "unpin")
