"""Finds the manager of this process that has a store open, when the store is opened again.

A cell of a notebook is run again, while a variable or the notebook's list of outputs still holds
the manager of its first run. With the same options the new manager shares what the first one has.
"""

from __future__ import annotations

import sys
from dataclasses import fields
from typing import Any, Literal, NamedTuple

from memories.core.lifecycle import Lifecycle, running
from memories.errors import StoreLockedError
from memories.options.migration import MigrationSettings
from memories.options.settings import Settings

# What the options are called that the settings have under another name.
_OPTIONS = {
    "capacities": "sizes",
    "glacier_enabled": "glacier_memory_enabled",
    "policies": "eviction_policy",
    "drop_when_full": "on_full",
}


class OpenStore(NamedTuple):
    """The services of an open store, and one of the managers that hold them."""

    lifecycle: Lifecycle
    manager: object  # While it is referred to, the services do not end.


def find_open_store(
    settings: Settings, migration: MigrationSettings | Literal[False] | None, kind: type
) -> OpenStore | None:
    """Return the open store for a new manager of class `kind`; None if this process has none.

    Raises:
        StoreLockedError: it was opened with other options, or by a manager of another class.
    """
    if settings.storage_path is None or settings.read_only:
        return None
    for lifecycle in running():
        services = lifecycle.services
        if services.settings.storage_path != settings.storage_path or not lifecycle.is_open:
            continue
        manager = next(iter(lifecycle.owners()), None)
        if manager is None:
            continue  # It was collected, and its end is awaited before the store is opened.
        other = differing(services.settings, settings)
        if services.migration != (migration if migration is False else migration or _DEFAULT):
            other.append("migration")
        if type(manager) is kind and not other and getattr(kind, "_can_share", False):
            return OpenStore(lifecycle, manager)
        raise StoreLockedError(
            f"{settings.storage_path} is open in this process already, as "
            f"{name_of(manager) or 'a ' + type(manager).__name__}"
            f"{' with other options (' + ', '.join(other) + ')' if other else ''}: use that "
            "manager, or call its cleanup() before the store is opened again"
        )
    return None


def differing(one: Settings, two: Settings) -> list[str]:
    """Return the names of the options that differ; their values may be secret."""
    names = [field.name for field in fields(Settings) if field.compare]
    return [_OPTIONS.get(name, name) for name in names if getattr(one, name) != getattr(two, name)]


def name_of(manager: object) -> str:
    """Return how the main program refers to `manager`: a variable, or an output of a notebook."""
    known: dict[str, Any] = dict(vars(sys.modules["__main__"]))
    for name, value in known.items():
        if value is manager and not name.startswith("_"):
            return name
    outputs = known.get("Out")
    for number, value in list(outputs.items()) if isinstance(outputs, dict) else ():
        if value is manager:
            return f"Out[{number}]"
    return ""


def require_alone(lifecycle: Lifecycle) -> None:
    """Raise StoreLockedError if the end of a `with` block would end managers of other code."""
    if lifecycle.closed or len(lifecycle.owners()) < 2:
        return
    raise StoreLockedError(
        f"{lifecycle.services.settings.storage_path} is open in this process as another manager, "
        "which the end of this `with` block would close: use it without `with`, or call cleanup() "
        "first"
    )


_DEFAULT = MigrationSettings()
