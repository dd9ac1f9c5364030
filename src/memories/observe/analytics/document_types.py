"""The types of the fields of a state document, as a document of another process must have them.

What shows a document relies on them: a text where a number belongs could be markup.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NotRequired, TypedDict

import msgspec

from memories.errors import CorruptDataError
from memories.model.tiers import TierText

# Upper bounds of the document's histograms, in seconds: each is four times the one before.
BOUNDS = tuple(1e-6 * 4.0**power for power in range(15))


class _Tier(TypedDict):
    medium: str
    configured_bytes: int
    effective_bytes: int
    used_bytes: int
    keys: int
    hits: int
    usage_percent: float


class _Route(TypedDict):
    source: TierText
    target: TierText
    cause: str
    count: int
    bytes: int


class _Removed(TypedDict):
    count: int
    bytes: int


class _Written(TypedDict):
    frames: int
    raw_bytes: int
    stored_bytes: int
    compression: float | None


class _Latency(TypedDict):
    operation: str
    tier: TierText
    count: int
    seconds: float
    p50: float | None
    p90: float | None
    p99: float | None
    below: Annotated[list[int], msgspec.Meta(min_length=len(BOUNDS), max_length=len(BOUNDS))]


class _HotKey(TypedDict):
    key: str
    tier: TierText
    size: int
    hits: int
    rate: float


class _PinnedKey(TypedDict):
    key: str
    tier: TierText
    size: int


class _Move(TypedDict):
    at: float
    key: str
    source: TierText
    target: TierText
    size: int
    cause: str
    seconds: float


class _Process(TypedDict):
    version: int
    at: float
    state: str
    pid: int
    host: str
    store: NotRequired[str | None]
    configuration: NotRequired[dict[str, str]]
    rss_bytes: NotRequired[int | None]
    analytics_began: NotRequired[float | None]
    sample: NotRequired[dict[str, float | None] | None]


class _Counters(TypedDict):
    tiers: dict[TierText, _Tier]
    reads: int
    misses: int
    hit_rate_percent: float | None
    stored: int
    stored_bytes: int
    moves: list[_Route]
    removed: dict[str, _Removed]
    written: dict[TierText, _Written]
    latencies: list[_Latency]
    prefetch: dict[str, int] | None
    failures: int
    latest_failure: str | None


class _InRam(TypedDict):
    values: int
    unwritten: int
    listed: list[tuple[str, TierText, int, bool]]  # Key, tier, size, and whether it is on the disk.


class _Keys(TypedDict):
    hot_keys: list[_HotKey]
    pinned_keys: NotRequired[list[_PinnedKey]]
    latest_moves: list[_Move]
    in_ram: NotRequired[_InRam]


def check_document(document: Mapping[str, Any], where: str) -> None:
    """Check every field that is shown; others may be there.

    Raises:
        CorruptDataError: a field is missing, or of another type.
    """
    try:
        for fields in (_Process, _Counters, _Keys):
            msgspec.convert(document, fields)
    except (msgspec.ValidationError, RecursionError) as error:
        raise CorruptDataError(f"{where} is not a telemetry document: {error}") from error
