"""What a manager shows of itself: series, pictures, a page, a report, and one document of now.

The half of the manager that is looked at and not worked with. Nothing here is on the way of a hit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from memories.core.lifecycle import Engine
from memories.foundation.periodic import Periodic
from memories.observe.analytics import Series
from memories.observe.analytics.state_document import Document

if TYPE_CHECKING:
    from memories.core.explain import Explanation
    from memories.observe.dashboard import Dashboard

NODES_SECONDS = 2.0


class Faces:
    """Shows what an engine does, which a subclass provides."""

    _engine: Engine

    if TYPE_CHECKING:

        def explain(self, key: str) -> Explanation:
            """Return where `key` is, why, and its latest moves."""

    def enable_analytics(self, interval: float = 0.25, history: int = 4096) -> None:
        """Start sampling every `interval` seconds, keeping at most `history` points.

        With a `storage_path` the series are kept beside the store too, for other processes.
        """
        self._engine.enable_analytics(interval, history)

    def get_analytics(self, window: float | None = None) -> Series:
        """Return equal-length series: timestamps (s), hot/warm/cold usage (%), hit rate (%), more.

        It is a dict of lists, with `to_pandas`, `to_arrow` and `to_csv`. With `window` only the
        latest so many seconds.
        """
        return self._engine.get_analytics(window)

    def plot_analytics(self, path_or_ax: Any = None) -> Any:
        """Plot the analytics with matplotlib into a file or an Axes, and return the Axes."""
        return self._engine.plot_analytics(path_or_ax)

    def telemetry(self) -> Document:
        """Return what is known now as plain data: tiers, moves, latencies, hot keys.

        It is what `memories top`, the dashboard and the metrics show; docs/analytics.md names its
        fields.
        """
        self._engine.hierarchy.require_readable()
        return self._engine.observatory.document()

    def report(self, path: str | os.PathLike[str]) -> None:
        """Write one HTML file about the manager that needs nothing else to be read.

        Raises:
            StorageError: the file cannot be written.
        """
        from memories.observe.analytics.report import write_report

        write_report(path, self.telemetry(), self._engine.observatory.series_or_none())

    def dashboard(
        self,
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        token: str | None = None,
        hosts: Collection[str] = (),
    ) -> Dashboard:
        """Serve a live page about the manager, and return what tells its `url` and can `stop` it.

        Args:
            port: The port, 0 for any that is free.
            host: The address to listen on; anything but the loopback needs a token.
            token: What a request must show that changes something; None makes it read-only.
            hosts: Names under which it is reached besides `localhost` and addresses.

        Raises:
            MissingPackageError: starlette or uvicorn is not installed.
            InvalidOptionError: the address lets others in, and there is no token.
            StorageError: the port is taken.
        """
        self._engine.hierarchy.require_readable()
        from memories.observe.dashboard import serve

        source = ManagerSource(self)
        served = serve(source, host=host, port=port, token=token, hosts=hosts, ended=source.stop)
        self._engine.ends_before(served.stop, "its dashboard")
        source.start()
        return served

    def _repr_html_(self) -> str:
        from memories.observe.analytics.html import fragment

        if self._engine.closed:
            return "<p>MemoryManager, closed</p>"
        return fragment(self.telemetry(), self._engine.observatory.series_or_none())


class ManagerSource:
    """Answers a dashboard from a manager of this process, which it does not keep alive."""

    def __init__(self, manager: Any) -> None:
        import weakref

        self._manager = weakref.ref(manager)
        self._nodes: Mapping[str, Any] | None = None
        # Nodes are asked over the network, so not while a page waits.
        self._thread = Periodic(self._ask_nodes, "nodes", seconds=NODES_SECONDS)

    def start(self) -> None:
        """Begin to ask the nodes, if there are any."""
        if hasattr(self._alive(), "get_node_status"):
            self._thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._thread.stop()

    def document(self) -> Mapping[str, Any]:
        """Return what is known now."""
        return {**self._alive().telemetry(), "nodes": self._nodes}

    def series(self) -> Mapping[str, list[float]] | None:
        """Return the series so far, None if nobody samples."""
        series: Series | None = self._alive()._engine.observatory.series_or_none()
        return series

    def explain(self, key: str) -> Mapping[str, Any]:
        """Return what is known of `key`."""
        return explanation_document(self._alive().explain(key))

    def act(self, action: str, key: str) -> str:
        """Do one of the dashboard's actions."""
        manager = self._alive()
        acts: dict[str, Callable[[str], object]] = {
            "promote": manager.promote,
            "demote": manager.demote,
            "pin": manager.pin,
            "unpin": manager.unpin,
        }
        acts[action](key)
        return str(manager.get_tier(key))

    def _alive(self) -> Any:
        from memories.errors import ClosedError

        manager = self._manager()
        if manager is None:
            raise ClosedError("the manager is gone")
        return manager

    def _ask_nodes(self) -> None:
        self._nodes = {name: dict(state) for name, state in self._alive().get_node_status().items()}


def explanation_document(found: Explanation) -> dict[str, Any]:
    """Return an explanation as plain data, its sentence as `text`."""
    return {**asdict(found), "text": str(found)}
