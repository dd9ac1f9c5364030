"""OpenTelemetry instruments that observe a manager; they use the API only, not the SDK.

The instruments are observable: nothing is recorded, and the SDK calls back when it exports. The
manager is referred to weakly; once it is closed or garbage, nothing is observed.
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
    """Register instruments that observe `manager`.

    Args:
        manager: The manager, observed as long as it is open.
        meter_provider: The SDK's provider; the global one if it is None.
        name: An attribute `memories.manager` of every measurement, to distinguish managers.

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
    """Return the OpenTelemetry name of a Prometheus name: with a dot, without `_total`."""
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
