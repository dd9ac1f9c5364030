"""Read and change on which device, or on the host, each buffer of a value belongs.

Only descriptions are read and rewritten; `devices` copies the bytes. The home of a buffer is the
one of the leaf of the tree that is decoded from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from memories.codecs import registry
from memories.codecs.base import Codec, Parts
from memories.codecs.containers import CONTAINERS


def home_devices(parts: Parts) -> list[str | None]:
    """Return the device of each buffer; None where it must be in host memory to be decoded."""
    found: list[str | None] = [None] * len(parts.buffers)
    for codec, meta, places in _leaves(parts):
        for place in places:
            found[place] = codec.home(meta)
    return found


def move_home(parts: Parts, device: str) -> Parts:
    """Return `parts` with the home of everything that can be on `device` changed to it."""
    if not _is_tree(parts.meta):
        return parts._replace(meta=registry.codec_named(parts.codec).rehome(parts.meta, device))
    nodes = [
        node if node[0] in CONTAINERS else [
            node[0], registry.codec_named(node[0]).rehome(node[1], device), node[2]
        ]
        for node in parts.meta["nodes"]
    ]  # fmt: skip
    return parts._replace(meta={**parts.meta, "nodes": nodes})


def _leaves(parts: Parts) -> Iterator[tuple[Codec, Any, Any]]:
    if not _is_tree(parts.meta):
        yield registry.codec_named(parts.codec), parts.meta, range(len(parts.buffers))
        return
    for node in parts.meta["nodes"]:
        if node[0] not in CONTAINERS:
            yield registry.codec_named(node[0]), node[1], node[2]


def _is_tree(meta: Any) -> bool:
    return type(meta) is dict and meta.keys() == {"nodes", "root"}
