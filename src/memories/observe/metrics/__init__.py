"""The counters of a manager for monitoring: Prometheus text, and OpenTelemetry instruments.

Not a second set of counters: both read the manager's own when they are asked, so nothing is
counted twice and nothing costs anything between two readings. No key is ever a label.
"""

from __future__ import annotations

from memories.observe.metrics.otel import instrument
from memories.observe.metrics.prometheus import prometheus_text

__all__ = ["instrument", "prometheus_text"]
