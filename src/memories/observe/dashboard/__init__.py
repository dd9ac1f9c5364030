"""A live page about one manager: tiers, hit rate, moves, hot keys, and the story of a key.

One page, no build step and nothing from anywhere else; read-only unless it was started with a
token. It asks its source for plain data and knows no engine.
"""

from __future__ import annotations

from memories.observe.dashboard.server import Dashboard, serve
from memories.observe.dashboard.source import DashboardSource

__all__ = ["Dashboard", "DashboardSource", "serve"]
