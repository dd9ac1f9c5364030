"""Shows a manager to people: a plot, an HTML file, a live page, and a cell of a notebook."""

from __future__ import annotations

import os
from collections.abc import Collection
from itertools import islice
from typing import TYPE_CHECKING, Any

from memories.core.dashboard_source import ManagerSource, Observable
from memories.core.lifecycle import Lifecycle
from memories.observe.analytics import plot
from memories.observe.analytics.plot_panels import MOST_ENTRIES, heat_of

if TYPE_CHECKING:
    from memories.observe.dashboard import Dashboard


SAMPLE_SECONDS = 1.0  # The series of a dashboard, if the program has not enabled the analytics.
SAMPLES = 4096


class Reports:
    """Shows one manager."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._services = lifecycle.services

    def plot(self, path_or_ax: Any) -> Any:
        """Plot the series sampled so far into a file or an Axes, and return the Axes."""
        services = self._services
        stats = services.telemetry.stats()
        entries = islice(list(services.hierarchy.catalog.entries.values()), MOST_ENTRIES)
        return plot(
            services.telemetry.series(),
            path_or_ax,
            heat=heat_of(entries),
            curve=services.access_sampler.curve(stats.reads - stats.misses),
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write one self-contained HTML file."""
        from memories.observe.analytics.report import write_report

        telemetry = self._services.telemetry
        write_report(path, telemetry.document(), telemetry.series_or_none())

    def fragment(self) -> str:
        """Return the HTML of a notebook's cell."""
        if self._lifecycle.closed:
            return "<p>MemoryManager, closed</p>"
        from memories.observe.analytics.html import fragment

        telemetry = self._services.telemetry
        return fragment(telemetry.document(), telemetry.series_or_none())

    def serve(
        self,
        manager: Observable,
        *,
        host: str,
        port: int,
        token: str | None,
        hosts: Collection[str],
    ) -> Dashboard:
        """Serve a live page about `manager`, which stops before the manager ends.

        The charts need the analytics: they are enabled, unless they are already.
        """
        self._services.hierarchy.require_readable()
        from memories.observe.dashboard import serve

        telemetry = self._services.telemetry
        if telemetry.series_or_none() is None:
            telemetry.enable(SAMPLE_SECONDS, SAMPLES)

        source = ManagerSource(manager, telemetry)
        served = serve(source, host=host, port=port, token=token, hosts=hosts, ended=source.stop)
        self._lifecycle.ends_before(served.stop, "its dashboard")
        source.start()
        return served
