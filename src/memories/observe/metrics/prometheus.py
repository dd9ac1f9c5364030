"""The text format of Prometheus, with counters in base units; Prometheus derives the rates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from memories._version import __version__
from memories.observe.analytics.document_types import BOUNDS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]
Samples = Iterable[tuple[Labels, float]]


class Metric(NamedTuple):
    """One metric, and how its samples are read from a document."""

    name: str
    kind: str
    help: str
    samples: Callable[[Mapping[str, Any]], Samples]


def _requests(document: Mapping[str, Any]) -> Samples:
    for tier, facts in document["tiers"].items():
        yield {"tier": tier, "result": "hit"}, facts["hits"]
    yield {"tier": "none", "result": "miss"}, document["misses"]


def _tier(field: str) -> Callable[[Mapping[str, Any]], Samples]:
    return lambda document: [
        ({"tier": tier}, facts[field]) for tier, facts in document["tiers"].items()
    ]


def _moves(field: str) -> Callable[[Mapping[str, Any]], Samples]:
    names = ("source", "target", "cause")
    return lambda document: [
        ({name: move[name] for name in names}, move[field]) for move in document["moves"]
    ]


def _removed(field: str) -> Callable[[Mapping[str, Any]], Samples]:
    return lambda document: [
        ({"cause": cause}, counts[field]) for cause, counts in document["removed"].items()
    ]


def _written(field: str) -> Callable[[Mapping[str, Any]], Samples]:
    return lambda document: [
        ({"tier": tier}, counts[field]) for tier, counts in document["written"].items()
    ]


def _prefetch(document: Mapping[str, Any]) -> Samples:
    for result, count in (document["prefetch"] or {}).items():
        yield {"result": result}, count


def _total(field: str) -> Callable[[Mapping[str, Any]], Samples]:
    return lambda document: [({}, document[field])]


FAMILIES = (
    Metric("memories_build_info", "gauge", "The version, as a label.",
           lambda document: [({"version": __version__}, 1)]),
    Metric("memories_requests_total", "counter",
           "Retrieves by the tier that answered; a miss was answered by none.", _requests),
    Metric("memories_tier_used_bytes", "gauge", "Bytes held.", _tier("used_bytes")),
    Metric("memories_tier_capacity_bytes", "gauge", "Bytes configured.", _tier("configured_bytes")),
    Metric("memories_tier_effective_bytes", "gauge",
           "Bytes that the medium allows, at most those configured.", _tier("effective_bytes")),
    Metric("memories_tier_keys", "gauge", "Keys that lie here.", _tier("keys")),
    Metric("memories_stored_total", "counter", "Versions stored.", _total("stored")),
    Metric("memories_stored_bytes_total", "counter", "Bytes stored.", _total("stored_bytes")),
    Metric("memories_moves_total", "counter", "Moves between tiers.", _moves("count")),
    Metric("memories_moved_bytes_total", "counter", "Bytes moved between tiers.", _moves("bytes")),
    Metric("memories_removed_total", "counter", "Versions that left.", _removed("count")),
    Metric("memories_removed_bytes_total", "counter", "Bytes that left.", _removed("bytes")),
    Metric("memories_written_bytes_total", "counter",
           "Bytes of frames written to durable tiers.", _written("stored_bytes")),
    Metric("memories_written_raw_bytes_total", "counter",
           "Bytes of the values in those frames.", _written("raw_bytes")),
    Metric("memories_prefetch_total", "counter",
           "Values fetched ahead, by what became of them.", _prefetch),
    Metric("memories_failures_total", "counter",
           "Background actions that failed.", _total("failures")),
)  # fmt: skip

OPERATION_SECONDS = "memories_operation_seconds"
OPERATION_HELP = "Seconds that operations took; hits in memory take no clock."


def prometheus_text(source: Any) -> str:
    """Return the metrics of a manager, or of a document of one, in the text format 0.0.4.

    Args:
        source: A `MemoryManager`, or the result of its `telemetry()`.
    """
    # A manager is a mapping, too: so look for the method.
    document = source.telemetry() if hasattr(source, "telemetry") else source
    lines: list[str] = []
    for family in FAMILIES:
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
        lines += [_line(family.name, labels, value) for labels, value in family.samples(document)]
    lines += _histogram(document)
    return "\n".join(lines) + "\n"


def _histogram(document: Mapping[str, Any]) -> Iterable[str]:
    name = OPERATION_SECONDS
    yield f"# HELP {name} {OPERATION_HELP}"
    yield f"# TYPE {name} histogram"
    for timed in document["latencies"]:
        labels = {"operation": timed["operation"], "tier": timed["tier"]}
        for bound, count in zip(BOUNDS, timed["below"], strict=True):
            yield _line(f"{name}_bucket", {**labels, "le": f"{bound:g}"}, count)
        yield _line(f"{name}_bucket", {**labels, "le": "+Inf"}, timed["count"])
        yield _line(f"{name}_sum", labels, timed["seconds"])
        yield _line(f"{name}_count", labels, timed["count"])


def _line(name: str, labels: Labels, value: float) -> str:
    pairs = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{name}{{{pairs}}} {value!r}" if pairs else f"{name} {value!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
