"""Instruments of OpenTelemetry that observe a manager; its API only, the SDK is the program's.

Observable instruments: nothing is recorded, the SDK asks when it exports. The manager is held
weakly, and once it is closed or gone there is nothing to observe.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from memories._version import __version__
from memories.errors import ClosedError
from memories.foundation.optional_imports import require
from memories.observe.metrics.prometheus import FAMILIES, Metric

UNITS = {"bytes": "By", "keys": "{key}", "info": "1"}


def instrument(manager: Any, meter_provider: Any = None, *, name: str = "") -> None:
    """Let OpenTelemetry observe `manager` from now on.

    Args:
        manager: What is observed, for as long as it is open.
        meter_provider: The SDK's provider; the global one if it is None.
        name: Put on every measurement as `memories.manager`, to tell several managers apart.

    Raises:
        MissingPackageError: opentelemetry-api is not installed.
    """
    metrics = require("opentelemetry.metrics", extra="metrics")
    provider = meter_provider or metrics.get_meter_provider()
    meter = provider.get_meter("memories", __version__)
    reference = weakref.ref(manager)
    extra = {"memories.manager": name} if name else {}
    for family in FAMILIES:
        make = {
            "counter": meter.create_observable_counter,
            "gauge": meter.create_observable_gauge,
        }[family.kind]
        make(
            otel_name(family.name),
            callbacks=[_observer(reference, family, extra, metrics.Observation)],
            unit=UNITS.get(otel_name(family.name).rpartition("_")[2], "{event}"),
            description=family.help,
        )


def otel_name(name: str) -> str:
    """Return the name that OpenTelemetry expects for one of Prometheus: no `_total`, with a dot."""
    return "memories." + name.removeprefix("memories_").removesuffix("_total")


def _observer(
    reference: weakref.ref[Any],
    family: Metric,
    extra: Mapping[str, str],
    observation: Callable[..., Any],
) -> Callable[[Any], Iterable[Any]]:
    def observe(options: Any) -> Iterable[Any]:
        del options
        manager = reference()
        if manager is None:
            return []
        try:
            document = manager.telemetry()
        except ClosedError:
            return []
        return [
            observation(
                value, {**{f"memories.{label}": one for label, one in labels.items()}, **extra}
            )
            for labels, value in family.samples(document)
        ]

    return observe
