"""The settings of a cache, by the names of diskcache, kept in a file beside the store."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from memories.errors import InvalidOptionError
from memories.model.tiers import TierText

SETTINGS_NAME = "diskcache.json"
DEFAULT_SETTINGS: dict[str, Any] = {
    "statistics": 0,
    "tag_index": 0,
    "eviction_policy": "least-recently-stored",
    "size_limit": 2**30,
    "cull_limit": 10,
    "disk_min_file_size": 2**15,
    "disk_pickle_protocol": 5,
}
# The names of diskcache, and what they are here; `none` never removes anything.
EVICTION_POLICY = {
    "none": "lru",
    "least-recently-stored": "fifo",
    "least-recently-used": "lru",
    "least-frequently-used": "lfu",
}
LEAST_BYTES = 1 << 20  # A store needs some room to work in.
_WITHOUT_LIMIT = "80%"  # Of the disk.
_IN_RAM = {"hot": (8 << 20, 32), "warm": (56 << 20, 16)}  # At most, and a part of the disk's.


class CacheSettings:
    """Settings and options, those of this call before those that were kept.

    Args:
        directory: The directory of the cache.
        given: Settings and options of the store, by their names.

    Raises:
        InvalidOptionError: a value is invalid.
    """

    def __init__(self, directory: Path, given: Mapping[str, Any]) -> None:
        self._file = directory / SETTINGS_NAME
        ours = {name: value for name, value in given.items() if _is_setting(name)}
        self._options = {name: value for name, value in given.items() if name not in ours}
        self._values = {**DEFAULT_SETTINGS, **self._kept()}
        for name, value in ours.items():
            self.change(name, value, keep=False)
        if ours or not self._file.exists():
            self._keep()

    def options(self) -> dict[str, Any]:
        """Return the options of the store."""
        unlimited = self["eviction_policy"] == "none"
        policy = EVICTION_POLICY[self["eviction_policy"]]
        sizes = {f"{tier}_memory_size": size for tier, size in self.sizes().items()}
        if unlimited:
            sizes["cold_memory_size"] = _WITHOUT_LIMIT
        return {
            **sizes,
            "on_full": "raise" if unlimited else "evict",
            "eviction_policy": policy,
            **self._options,
        }

    def sizes(self) -> dict[TierText, str]:
        """Return the size of each tier: RAM holds little, for diskcache has nothing there."""
        limit = max(int(self["size_limit"]), LEAST_BYTES)
        ram = {tier: min(most, limit // part) for tier, (most, part) in _IN_RAM.items()}
        return {"hot": f"{ram['hot']} B", "warm": f"{ram['warm']} B", "cold": f"{limit} B"}

    def change(self, name: str, value: Any, *, keep: bool) -> None:
        """Change a setting; keep it in the file if `keep`.

        Raises:
            InvalidOptionError: there is no such setting, or the value is invalid.
        """
        if not _is_setting(name):
            raise InvalidOptionError(
                f"setting={name!r:.60} must be one of {', '.join(DEFAULT_SETTINGS)}"
            )
        wanted = _instead_of(name, value)
        if wanted is not None:
            raise InvalidOptionError(f"{name}={value!r:.60} must be {wanted}")
        self._values[name] = value
        if keep:
            self._keep()

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def _kept(self) -> dict[str, Any]:
        try:
            found = json.loads(self._file.read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            return {}  # A damaged file is as none: the settings are those that are given.
        if not isinstance(found, dict):
            return {}
        kept = {name: found[name] for name in DEFAULT_SETTINGS if name in found}
        valid = all(_instead_of(name, value) is None for name, value in kept.items())
        return kept if valid and "eviction_policy" in kept else {}

    def _keep(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        written = self._file.with_name(f"{SETTINGS_NAME}.{os.getpid()}")
        written.write_text(json.dumps(self._values), "utf-8")
        written.replace(self._file)


def _is_setting(name: str) -> bool:
    return name in DEFAULT_SETTINGS or name.startswith(("sqlite_", "disk_"))


def _instead_of(name: str, value: Any) -> str | None:
    """Return what a setting must be instead of `value`, None if that is valid."""
    if name == "eviction_policy":
        known = isinstance(value, str) and value in EVICTION_POLICY
        return None if known else f"one of {', '.join(EVICTION_POLICY)}"
    number = isinstance(value, int) or (isinstance(value, float) and isfinite(value))
    if name == "size_limit":
        bytes_of = number and not isinstance(value, bool) and value >= 0
        return None if bytes_of else "a number of bytes"
    if name in DEFAULT_SETTINGS:
        return None if number else "a number"
    return None if number or isinstance(value, str) else "a number, or a text"
