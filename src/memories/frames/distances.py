"""Where like things lie in the buffers of a value: what is asked before differences are tried.

Not a layout that anything relies on: a wrong distance costs compression, never data.
"""

from __future__ import annotations

from typing import Any

from memories.codecs.arrays import ArrayCodec, read_meta
from memories.codecs.base import Parts

Distances = tuple[int, ...]  # Bytes from a thing to its neighbour, to the next row, and so on.


def distances_of(parts: Parts) -> dict[int, Distances]:
    """Return the distances in those buffers of `parts` that are arrays, by their index."""
    if parts.codec == ArrayCodec.name:
        return {0: _distances(parts.meta)}
    nodes = parts.meta.get("nodes", ()) if isinstance(parts.meta, dict) else ()
    return {
        node[2][0]: _distances(node[1])
        for node in nodes
        if node[0] == ArrayCodec.name and len(node[2]) == 1
    }


def _distances(meta: Any) -> Distances:
    dtype, shape, order = read_meta(Parts(ArrayCodec.name, meta))
    distances = [dtype.itemsize]
    for extent in shape[:-1] if order == "F" else shape[:0:-1]:
        distances.append(distances[-1] * extent)
    return tuple(distances) if dtype.itemsize else ()
