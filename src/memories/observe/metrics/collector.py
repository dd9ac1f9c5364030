"""A collector for prometheus_client, for programs whose registry has metrics of their own.

The families are those of the text format. The manager is referred to weakly; once it is closed or
garbage, there is nothing to collect.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from memories.errors import ClosedError
from memories.foundation.optional_imports import require
from memories.observe.analytics.document_types import BOUNDS
from memories.observe.metrics.prometheus import (
    FAMILIES,
    OPERATION_HELP,
    OPERATION_SECONDS,
    Labels,
    Metric,
)


class PrometheusCollector:
    """What a registry asks at each scrape; see `prometheus_collector`."""

    def __init__(self, manager: Any, name: str, core: Any) -> None:
        self._manager = weakref.ref(manager)
        self._name = {"manager": name} if name else {}
        self._core = core

    def describe(self) -> Iterable[Any]:
        """Return nothing: so a registry does not collect when it registers."""
        return ()

    def collect(self) -> Iterator[Any]:
        """Yield the metric families of prometheus_client, as the counters are now."""
        manager = self._manager()
        if manager is None:
            return
        try:
            document = manager.telemetry()
        except ClosedError:
            return
        for metric in FAMILIES:
            yield self._family(metric, document)
        yield self._histogram(document)

    def _family(self, metric: Metric, document: Mapping[str, Any]) -> Any:
        samples = [(self._labelled(labels), value) for labels, value in metric.samples(document)]
        names = list(samples[0][0]) if samples else []
        kinds = {
            "counter": self._core.CounterMetricFamily,
            "gauge": self._core.GaugeMetricFamily,
        }
        family = kinds[metric.kind](metric.name, metric.help, labels=names)
        for labels, value in samples:
            family.add_metric(list(labels.values()), value)
        return family

    def _histogram(self, document: Mapping[str, Any]) -> Any:
        names = list(self._labelled({"operation": "", "tier": ""}))
        family = self._core.HistogramMetricFamily(OPERATION_SECONDS, OPERATION_HELP, labels=names)
        for timed in document["latencies"]:
            labels = self._labelled({"operation": timed["operation"], "tier": timed["tier"]})
            below = zip(BOUNDS, timed["below"], strict=True)
            buckets = [(f"{bound:g}", count) for bound, count in below]
            buckets.append(("+Inf", timed["count"]))
            family.add_metric(list(labels.values()), buckets, timed["seconds"])
        return family

    def _labelled(self, labels: Labels) -> dict[str, str]:
        return {**labels, **self._name}


def prometheus_collector(manager: Any, *, name: str = "") -> PrometheusCollector:
    """Return a collector for a registry: `REGISTRY.register(prometheus_collector(manager))`.

    Args:
        manager: The manager, observed as long as it is open.
        name: A label `manager` of every sample, to distinguish managers.

    Raises:
        MissingPackageError: prometheus-client is not installed.
    """
    core = require("prometheus_client.core", extra="prometheus")
    return PrometheusCollector(manager, name, core)
