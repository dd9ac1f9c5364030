"""Metrics: read by the parsers that will read them, equal to the counters, and without keys."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from memories import MemoryManager
from memories.observe.metrics import instrument, prometheus_collector, prometheus_text

parser = pytest.importorskip("prometheus_client.parser")

AWKWARD = 'quote" back\\slash\nline'


@pytest.fixture
def manager() -> Iterator[MemoryManager]:
    """Return a manager in which some of everything has happened."""
    with MemoryManager(0.001, 0.001, 1, migration=False, prefetch="off") as made:
        for number in range(5):
            made.store(f"{AWKWARD}/{number}", np.arange(100.0), tier="warm")
            made.retrieve(f"{AWKWARD}/{number}")
        made.migrate(f"{AWKWARD}/0", "cold")
        made.retrieve(f"{AWKWARD}/0")
        made.get("absent")
        made.delete(f"{AWKWARD}/1")
        yield made


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return what Prometheus's own parser finds, by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


def labels(**pairs: str) -> tuple[tuple[str, str], ...]:
    """Return labels as `samples` has them."""
    return tuple(sorted(pairs.items()))


def test_the_text_says_what_the_counters_say(manager: MemoryManager) -> None:
    """Parsed by the client of Prometheus, not by our own idea of the format."""
    found = samples(prometheus_text(manager))
    assert 5 == found["memories_requests_total", labels(tier="warm", result="hit")]
    assert 1 == found["memories_requests_total", labels(tier="cold", result="hit")]
    assert 1 == found["memories_requests_total", labels(tier="none", result="miss")]
    route = labels(source="warm", target="cold", cause="explicit")
    assert 1 == found["memories_moves_total", route]
    assert 800 < found["memories_moved_bytes_total", route] < 2000
    assert 1 == found["memories_removed_total", labels(cause="removed")]
    used = manager.stats().tiers["warm"].used_bytes  # type: ignore[index]
    assert used == found["memories_tier_used_bytes", labels(tier="warm")]


def test_histograms_are_what_prometheus_asks_for(manager: MemoryManager) -> None:
    """Cumulative, ending with +Inf, which is the count."""
    found = samples(prometheus_text(manager))
    buckets = {
        float(dict(pairs)["le"]): value
        for (name, pairs), value in found.items()
        if name == "memories_operation_seconds_bucket"
        and ("operation", "store") in pairs
        and ("tier", "warm") in pairs
    }
    ordered = [buckets[bound] for bound in sorted(buckets)]
    assert sorted(ordered) == ordered
    assert float("inf") == max(buckets)
    count = found["memories_operation_seconds_count", labels(operation="store", tier="warm")]
    assert 5 == count == ordered[-1]
    assert found["memories_operation_seconds_sum", labels(operation="store", tier="warm")] > 0


def test_names_are_counters_in_base_units_and_no_key_is_a_label(manager: MemoryManager) -> None:
    """Millions of keys would be millions of time series."""
    text = prometheus_text(manager)
    assert "slash" not in text
    for family in parser.text_string_to_metric_families(text):
        assert family.name.startswith("memories_")
        assert family.documentation.endswith(".")
        assert "rate" not in family.name


def test_every_counter_only_grows(manager: MemoryManager) -> None:
    """A counter that falls is taken for a restart."""
    before = samples(prometheus_text(manager))
    for number in range(20):
        manager.store(f"more/{number}", b"x" * 100_000)
        manager.retrieve(f"more/{number}")
    after = samples(prometheus_text(manager))
    assert set(before) <= set(after)
    kinds = ("_total", "_count", "_bucket", "_sum")
    assert [] == [one for one in before if one[0].endswith(kinds) and after[one] < before[one]]


def collected(reader: Any) -> dict[str, list[Any]]:
    """Return the data points of each instrument."""
    data = reader.get_metrics_data()
    if data is None:
        return {}
    return {
        metric.name: [
            (metric.unit, point.value, dict(point.attributes)) for point in metric.data.data_points
        ]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def test_opentelemetry_observes_the_same_counters(manager: MemoryManager) -> None:
    """Through the API; the SDK is the test's, as it is the program's."""
    sdk = pytest.importorskip("opentelemetry.sdk.metrics")
    reader = pytest.importorskip("opentelemetry.sdk.metrics.export").InMemoryMetricReader()
    provider = sdk.MeterProvider(metric_readers=[reader])
    instrument(manager, provider, name="tiles")
    found = collected(reader)
    hits = [
        value
        for _, value, attributes in found["memories.requests"]
        if attributes
        == {"memories.tier": "warm", "memories.result": "hit", "memories.manager": "tiles"}
    ]
    assert [5] == hits
    assert {"By"} == {unit for unit, _, _ in found["memories.tier_used_bytes"]}
    manager.cleanup()
    assert {} == {name: points for name, points in collected(reader).items() if points}
    provider.shutdown()


def test_instruments_do_not_keep_a_manager_alive() -> None:
    """A manager that is garbage ends, although it was observed."""
    sdk = pytest.importorskip("opentelemetry.sdk.metrics")
    reader = pytest.importorskip("opentelemetry.sdk.metrics.export").InMemoryMetricReader()
    provider = sdk.MeterProvider(metric_readers=[reader])
    manager = MemoryManager(0.001, 0.001, 0.001)
    instrument(manager, provider)
    del manager
    gc.collect()
    assert {} == {name: points for name, points in collected(reader).items() if points}
    provider.shutdown()


def test_neither_needs_the_other() -> None:
    """Prometheus text is written without any package of theirs."""
    code = (
        "import sys, memories.observe.metrics\n"
        "assert not {'opentelemetry', 'prometheus_client'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)


def test_a_registry_collects_what_the_text_says(manager: MemoryManager) -> None:
    """The same names, labels and values, beside the metrics of the program itself."""
    import prometheus_client

    registry = prometheus_client.CollectorRegistry()
    prometheus_client.Counter("requests_of_the_service", "Not ours.", registry=registry).inc()
    registry.register(prometheus_collector(manager))
    collected = prometheus_client.generate_latest(registry).decode()
    ours = set(map(sample_of, parser.text_string_to_metric_families(prometheus_text(manager))))
    theirs = set(map(sample_of, parser.text_string_to_metric_families(collected)))
    assert ours and ours <= theirs
    assert {"requests_of_the_service"} == {name[:23] for name, *_ in theirs - ours}


def sample_of(family: Any) -> tuple[str, str, frozenset[Any]]:
    """Return a family with its samples, except those that change from scrape to scrape."""
    samples = (sample for sample in family.samples if not sample.name.endswith("_created"))
    return (
        family.name,
        family.documentation,
        frozenset((one.name, frozenset(one.labels.items()), one.value) for one in samples),
    )


def test_a_name_distinguishes_managers_and_a_closed_one_is_silent(manager: MemoryManager) -> None:
    """Two managers in one registry; the end of one is no error of the scrape."""
    import prometheus_client

    registry = prometheus_client.CollectorRegistry()
    with MemoryManager(0.001, 0.001, 1) as other:
        registry.register(prometheus_collector(other, name="other"))
        registry.register(prometheus_collector(manager, name="first"))
        names = {
            sample.labels["manager"] for family in registry.collect() for sample in family.samples
        }
        assert {"first", "other"} == names
    names = {sample.labels["manager"] for family in registry.collect() for sample in family.samples}
    assert {"first"} == names
