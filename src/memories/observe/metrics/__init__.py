"""The counters of a manager for monitoring: Prometheus, as text or collector, and OpenTelemetry.

All read the manager's counters when they are called, so nothing is counted twice and nothing costs
time in between. A key is never a label.
"""

from __future__ import annotations

from memories.observe.metrics.collector import prometheus_collector
from memories.observe.metrics.otel import instrument
from memories.observe.metrics.prometheus import prometheus_text

__all__ = ["instrument", "prometheus_collector", "prometheus_text"]
