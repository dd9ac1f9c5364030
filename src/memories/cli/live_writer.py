"""Knows what the process that has a store open holds in its RAM, from its telemetry file.

Commands read the disk. Values that are only in the RAM of the writer are not there, and its copies
of others are read faster: a command that knows only the disk would deny the former.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from memories.cli.exit_codes import NOT_FOUND, UNAVAILABLE, CliFailure
from memories.cli.store import opened
from memories.errors import KeyNotFoundError
from memories.foundation.units import format_size

if TYPE_CHECKING:
    from memories.core.explain import Explanation


class ValueInRam(NamedTuple):
    """A value in the RAM of the writer."""

    key: str
    tier: str
    size: int
    durable: bool  # Whether the same version is on the disk, too.


class LiveWriter:
    """The process that has a store open; its file is at most about a second old.

    Attributes:
        pid: Its number.
        age_seconds: Seconds since it wrote the file.
        values: How many values it has in RAM.
        unwritten: How many of them are not on the disk.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.pid = int(document["pid"])
        self.age_seconds = max(0.0, time.time() - document["at"])
        in_ram = document.get("in_ram") or {}
        self.values = int(in_ram.get("values", 0))
        self.unwritten = int(in_ram.get("unwritten", 0))
        self.tiers: Mapping[str, Mapping[str, Any]] = {
            name: tier for name, tier in document["tiers"].items() if name in ("hot", "warm")
        }
        self._listed = {row[0]: ValueInRam(*row) for row in in_ram.get("listed", ())}
        self._hot = {
            one["key"]: ValueInRam(one["key"], one["tier"], one["size"], False)
            for one in document["hot_keys"]
        }
        self._complete = len(self._listed) == self.values

    def find(self, key: str) -> ValueInRam | None:
        """Return a value in RAM; None if it is not there, or not known to be."""
        return self._listed.get(key) or self._hot.get(key)

    def where(self, found: ValueInRam) -> str:
        """Return where a value is, in words."""
        return (
            f"in the RAM of pid {self.pid} ({found.tier}, {format_size(found.size)}, "
            f"{self.age_seconds:.1f} s ago)"
        )

    def about_absent(self, key: str) -> str:
        """Return what to say of a key that is not on the disk; empty if it is nowhere."""
        found = self.find(key)
        if found is not None:
            return (
                f"{key!r} is {self.where(found)} and not on the disk: that process writes it at "
                "flush(), when it needs the room, or at its end"
            )
        if self.unwritten and not self._complete:
            return (
                f"{key!r} is not on the disk; pid {self.pid} has the store open, with "
                f"{self.unwritten:,} values that are only in its RAM: it may be one of them"
            )
        return ""


def writer_of(store: Path) -> LiveWriter | None:
    """Return the process of this machine that has the store open; None if there is none."""
    from memories.observe.analytics.telemetry_files import read_document, writer_lives

    document = read_document(store)
    return LiveWriter(document) if document and writer_lives(document) else None


class Located(NamedTuple):
    """Where a key is: what the disk says, and what the file of the writer says."""

    at_rest: Explanation | None  # None if no durable tier has the key.
    writer: LiveWriter | None
    in_ram: ValueInRam | None


def locate(store: Path, glacier: str | None, key: str) -> Located:
    """Look for a key in the RAM of the writer, as far as that is known, and at rest."""
    writer = writer_of(store)
    in_ram = writer.find(key) if writer else None
    try:
        with opened(store, glacier) as manager:
            return Located(manager.explain(key), writer, in_ram)
    except KeyNotFoundError:
        return Located(None, writer, in_ram)


def ram_facts(writer: LiveWriter | None, found: ValueInRam | None) -> dict[str, Any]:
    """Return a value in RAM as plain data for JSON; nothing without one."""
    if writer is None or found is None:
        return {}
    return {
        "in_ram_of": writer.pid,
        "ram_tier": found.tier,
        "ram_size": found.size,
        "durable": found.durable,
    }


def not_found(key: str, writer: LiveWriter | None) -> CliFailure:
    """Return the failure of a command whose key is not on the disk."""
    words = writer.about_absent(key) if writer else ""
    in_ram = writer is not None and writer.find(key) is not None
    return CliFailure(
        words or f"{key!r} is in no tier", exit_code=UNAVAILABLE if in_ram else NOT_FOUND
    )
