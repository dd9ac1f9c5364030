"""The state of a manager as plain data, shared by telemetry files, dashboard, reports and metrics.

The document has a version number. Fields may be added; no field changes its meaning.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from memories.foundation.histogram import Latency
from memories.model.events import Moved
from memories.observe.analytics.derived import prefetch_of
from memories.observe.analytics.document_types import BOUNDS
from memories.observe.analytics.hotkeys import HotKey, PinnedKey
from memories.observe.counters import Stats

VERSION = 1
Document = dict[str, Any]


def document_of(
    stats: Stats,
    *,
    hot_keys: Iterable[HotKey] = (),
    pinned_keys: Iterable[PinnedKey] = (),
    moves: Iterable[Moved] = (),
    wall: float,
    monotonic: float,
    **more: Any,
) -> Document:
    """Return `stats`, hot keys and latest moves as dicts, lists, numbers and text."""
    return {
        "version": VERSION,
        "at": wall,
        **more,
        "tiers": {str(name): _tier(tier) for name, tier in stats.tiers.items()},
        "reads": stats.reads,
        "misses": stats.misses,
        "hit_rate_percent": none_for_nan(stats.hit_rate_percent),
        "stored": stats.stored,
        "stored_bytes": stats.stored_bytes,
        "moves": [
            {
                "source": str(source), "target": str(target), "cause": str(cause),
                "count": count, "bytes": stats.moved_bytes[source, target, cause],
            }
            for (source, target, cause), count in sorted(stats.moves.items())
        ],
        "removed": {
            str(cause): {"count": count, "bytes": stats.removed_bytes.get(cause, 0)}
            for cause, count in sorted(stats.removed.items())
        },
        "written": {
            str(name): {
                "frames": one.frames, "raw_bytes": one.raw_bytes,
                "stored_bytes": one.stored_bytes, "compression": none_for_nan(one.compression),
            }
            for name, one in sorted(stats.written.items())
        },
        "latencies": [
            {"operation": operation, "tier": str(tier), **_latency(latency)}
            for (operation, tier), latency in sorted(stats.latencies.items())
        ],
        "prefetch": dict(prefetch_of(stats)) or None,
        "failures": stats.failures,
        "latest_failure": stats.latest_failure,
        "hot_keys": [one._asdict() for one in hot_keys],
        "pinned_keys": [one._asdict() for one in pinned_keys],
        "latest_moves": [_move(one, wall - monotonic) for one in moves],
    }  # fmt: skip


def none_for_nan(value: float) -> float | None:
    """Return `value`, None if it is NaN: JSON has no NaN."""
    return None if math.isnan(value) else value


def _tier(tier: Any) -> Mapping[str, Any]:
    names = ("medium", "configured_bytes", "effective_bytes", "used_bytes", "keys", "hits")
    return {**{name: getattr(tier, name) for name in names}, "usage_percent": tier.usage_percent}


def _latency(latency: Latency) -> Mapping[str, Any]:
    return {
        "count": latency.samples,
        "seconds": latency.seconds,
        "p50": none_for_nan(latency.quantile(0.5)),
        "p90": none_for_nan(latency.quantile(0.9)),
        "p99": none_for_nan(latency.quantile(0.99)),
        "below": list(latency.cumulative(BOUNDS)),
    }


def _move(move: Moved, offset: float) -> Mapping[str, Any]:
    return {
        "at": move.at + offset, "key": move.key, "source": str(move.source),
        "target": str(move.target), "size": move.size, "cause": str(move.cause),
        "seconds": move.seconds,
    }  # fmt: skip
