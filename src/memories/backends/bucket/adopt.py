"""A bucket's own account of itself, read into an empty map.

Not a repair: an object whose index is damaged is an error that names it.
A few requests for many values: one list per thousand objects, one or two reads per index.
"""

from __future__ import annotations

from typing import NamedTuple

from memories.backends.bucket.ledger import Ledger
from memories.backends.bucket.objectstore import ObjectStore, Stat
from memories.backends.bucket.pack import (
    TRAILER_BYTES,
    Contents,
    Index,
    read_index,
    read_trailer,
    records,
)
from memories.backends.bucket.place import Place, token_of
from memories.backends.bucket.state import State
from memories.backends.bucket.transfer import Transfer
from memories.errors import CorruptDataError

_TAIL_BYTES = 16 * 1024  # Holds the whole index of an object with few values.


class Found(NamedTuple):
    """An object and its index."""

    token: bytes
    size: int
    index: Index


def adopt(transfer: Transfer, store: ObjectStore, state: State, ledger: Ledger, now: float) -> None:
    """Fill an empty map with everything that the bucket holds.

    Raises:
        CorruptDataError: an object under the prefix is damaged or not ours.
        UnavailableError: the store did not answer.
    """
    stats = [stat for stat in store.list("objects/") if token_of(stat.name)]
    found = sorted(
        transfer.map(lambda stat: look(store, stat), stats), key=lambda item: item.index.sequence
    )
    with state.transaction():
        for token, size, index in found:
            note(state, ledger, token, index.sequence, size, index.contents, now)
        state.set("adopted", 1)


def look(store: ObjectStore, stat: Stat) -> Found:
    """Read the index of one object, by one ranged request, or two where it is long."""
    token = token_of(stat.name)
    assert token is not None
    begin = max(0, stat.size - _TAIL_BYTES)
    tail = bytes(store.get_range(stat.name, begin, stat.size - begin))
    trailer = read_trailer(tail, stat.size, stat.name)
    if trailer.offset >= begin:
        stored = tail[trailer.offset - begin : -TRAILER_BYTES]
    else:
        stored = bytes(store.get_range(stat.name, trailer.offset, trailer.stored))
    index = read_index(stored, trailer, stat.name)
    for item in index.contents.stored:
        if item.offset < 0 or item.length < 0 or item.offset + item.length > trailer.offset:
            raise CorruptDataError(
                f"The archive object {stat.name} says that key {item.record.key!r} lies outside it."
            )
    return Found(token, stat.size, index)


def note(
    state: State,
    ledger: Ledger,
    token: bytes,
    sequence: int,
    size: int,
    contents: Contents,
    now: float,
) -> None:
    """Enter one object and what it says into the map."""
    state.run(
        "INSERT INTO object VALUES (?, ?, ?, 0, 'there', ?, NULL)", token, sequence, size, now
    )
    state.add("physical", size)
    state.set("sequence", max(sequence, state.get("sequence", 0)))
    if contents.cleared > state.get("cleared", 0):
        ledger.clear(contents.cleared, now)
    for record in records(token, contents):
        ledger.add(record, Place.decode(record.place), now)
    for key, version in contents.removed:
        ledger.remove(key, version, token, now)
