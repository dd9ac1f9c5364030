"""Gives a dashboard the data of a manager in this process, and carries out its actions."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from memories.core.explain import Explanation, explanation_document
from memories.errors import ClosedError
from memories.foundation.periodic import Periodic
from memories.observe.analytics.state_document import Document
from memories.observe.telemetry_service import TelemetryService

NODES_SECONDS = 2.0


class Observable(Protocol):
    """What a dashboard shows and changes: a manager."""

    def telemetry(self) -> Document:
        """Return the present state as plain data."""

    def explain(self, key: str) -> Explanation:
        """Return where `key` is, and why."""

    def promote(self, key: str) -> str:
        """Move `key` one tier up."""

    def demote(self, key: str) -> str:
        """Move `key` one tier down."""

    def pin(self, key: str) -> None:
        """Forbid moving `key`."""

    def unpin(self, key: str) -> None:
        """Allow moving `key` again."""

    def get_tier(self, key: str) -> str:
        """Return the tier of `key`."""


class ManagerSource:
    """Answers a dashboard. It does not keep the manager alive."""

    def __init__(self, manager: Observable, telemetry: TelemetryService) -> None:
        self._manager = weakref.ref(manager)
        self._telemetry = telemetry
        self._nodes: Mapping[str, Any] | None = None
        # The nodes are asked in the background: a page must not wait for the network.
        self._thread = Periodic(self._ask_nodes, "nodes", seconds=NODES_SECONDS)

    def start(self) -> None:
        """Start asking for the state of the nodes, if there are any."""
        if hasattr(self._alive(), "get_node_status"):
            self._thread.start()

    def stop(self) -> None:
        """Stop asking for the state of the nodes."""
        self._thread.stop()

    def document(self) -> Mapping[str, Any]:
        """Return the present state."""
        return {**self._alive().telemetry(), "nodes": self._nodes}

    def series(self) -> Mapping[str, list[float]] | None:
        """Return the series sampled so far; None while the analytics are off."""
        return self._telemetry.series_or_none()

    def explain(self, key: str) -> Mapping[str, Any]:
        """Return where `key` is, and why."""
        return explanation_document(self._alive().explain(key))

    def act(self, action: str, key: str) -> str:
        """Carry out an action of the dashboard, and return the tier of `key` after it."""
        manager = self._alive()
        actions: dict[str, Callable[[str], object]] = {
            "promote": manager.promote,
            "demote": manager.demote,
            "pin": manager.pin,
            "unpin": manager.unpin,
        }
        actions[action](key)
        return manager.get_tier(key)

    def _alive(self) -> Observable:
        manager = self._manager()
        if manager is None:
            raise ClosedError("the manager is gone")
        return manager

    def _ask_nodes(self) -> None:
        ask = getattr(self._alive(), "get_node_status", dict)
        self._nodes = {name: dict(state) for name, state in ask().items()}
