"""The dashboard: a live page about one manager, with tiers, hit rate, moves, hot keys and keys.

It is one page without a build step and without external resources, read-only unless it was started
with a token. It gets plain data from its source and does not know the engine.
"""

from __future__ import annotations

from memories.observe.dashboard.server import Dashboard, serve
from memories.observe.dashboard.source import DashboardSource

__all__ = ["Dashboard", "DashboardSource", "serve"]
