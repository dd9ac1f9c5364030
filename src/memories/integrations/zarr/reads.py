"""Counts what was read of each array of a store."""

from __future__ import annotations

import re
from dataclasses import dataclass

# `cube/c/3/4` (version 3), `cube/3.4` and `cube/3/4` (version 2), `cube/zarr.json`.
_ARRAY = re.compile(r"(?:(?P<array>.+?)/)??(?:c(?:[/.]\d+)*|\d+(?:[./]\d+)*|zarr\.json|\.z\w+)")


@dataclass(slots=True)
class ArrayReads:
    """What was read of one array.

    Attributes:
        hits: Reads that were answered from the tiers.
        absent_hits: Reads of chunks known to be absent at the source.
        requests: Requests to the source, those of `checks` and `prefetched` included.
        checks: Requests that only asked whether a kept value is still the same.
        prefetched: Requests for neighbouring chunks, ahead of their reads.
        fetched_bytes: Bytes that the source sent.
    """

    hits: int = 0
    absent_hits: int = 0
    requests: int = 0
    checks: int = 0
    prefetched: int = 0
    fetched_bytes: int = 0


def array_of(key: str) -> str:
    """Return the path of the array or group that a key of a store belongs to."""
    found = _ARRAY.fullmatch(key)
    return (found["array"] or "") if found else key.rpartition("/")[0]
