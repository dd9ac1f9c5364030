"""A bucket's own account of itself, read into the map.

Not a repair: an object whose index is damaged is an error that names it.
A few requests for many values: one list per thousand objects, one read per manifest or pack.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from memories.backends.bucket.ledger import Ledger
from memories.backends.bucket.objectstore import Absent, ObjectStore, Stat
from memories.backends.bucket.pack import (
    TRAILER_BYTES,
    Contents,
    Index,
    read_index,
    read_trailer,
)
from memories.backends.bucket.pins import load_pins
from memories.backends.bucket.place import token_of
from memories.backends.bucket.state import State
from memories.backends.bucket.transfer import Transfer
from memories.errors import CorruptDataError

_TAIL_BYTES = 16 * 1024  # Holds the whole index of an object with few values.


class Found(NamedTuple):
    """An object of the bucket and what it says."""

    token: bytes
    epoch: int
    sequence: int
    size: int
    contents: Contents
    manifest: bytes | None


def adopt(
    transfer: Transfer,
    store: ObjectStore,
    state: State,
    ledger: Ledger,
    begins: Mapping[int, int],
    now: float,
) -> None:
    """Replace the map by everything that the bucket holds; what is staged stays staged.

    Raises:
        CorruptDataError: an object under the prefix is damaged or not ours.
        UnavailableError: the store did not answer.
    """
    with state.transaction():
        _forget(state)
        covered: dict[bytes, bytes] = {}
        sizes = {stat.name: stat.size for stat in store.list("objects/")}
        manifests = list(store.list("manifests/"))
        for manifest, index in transfer.map(lambda stat: _look(store, stat), manifests):
            for token, (epoch, sequence, size, contents) in index.covers.items():
                covered[token] = manifest
                _enter(state, ledger, sizes, begins, now, Found(
                    token, epoch, sequence, size, contents, manifest
                ))  # fmt: skip
        rest = [
            Stat(name, size, 0.0)
            for name, size in sizes.items()
            if (ours := token_of(name)) is not None and ours not in covered
        ]
        for token, index in transfer.map(lambda stat: _look(store, stat), rest):
            size = sizes[f"objects/{token.hex()}"]
            _enter(state, ledger, sizes, begins, now, Found(
                token, index.epoch, index.sequence, size, index.contents, None
            ))  # fmt: skip
        load_pins(store, state)
        ledger.settle(now)
        state.set("adopted", 1)


def _forget(state: State) -> None:
    there = "SELECT token FROM object WHERE status IN ('there', 'leaving')"
    state.run(f"DELETE FROM entry WHERE token IN ({there})")
    state.run("DELETE FROM object WHERE status IN ('there', 'leaving')")
    state.run("DELETE FROM pin")


def _enter(
    state: State,
    ledger: Ledger,
    sizes: Mapping[str, int],
    begins: Mapping[int, int],
    now: float,
    found: Found,
) -> None:
    name = f"objects/{found.token.hex()}"
    late = any(e > found.epoch and found.sequence >= first for e, first in begins.items())
    if late or name not in sizes:
        return  # Written by a store that was the writer no more, or unlinked since.
    if sizes[name] != found.size:
        raise CorruptDataError(
            f"The archive object {name} has {sizes[name]} bytes, its manifest says {found.size}."
        )
    for item in found.contents.stored:
        if item.offset < 0 or item.length < 0 or item.offset + item.length > found.size:
            raise CorruptDataError(
                f"The archive object {name} says that key {item.record.key!r} lies outside of it."
            )
    state.run(
        "INSERT OR IGNORE INTO object VALUES (?, ?, ?, ?, 0, 'there', ?, ?, ?)",
        found.token, found.epoch, found.sequence, found.size, now, now, found.manifest,
    )  # fmt: skip
    state.set("sequence", max(found.sequence, state.number("sequence")))
    ledger.load(found.token, found.contents)


def _look(store: ObjectStore, stat: Stat) -> tuple[bytes, Index]:
    """Read the index of one object, by one ranged request, or two where it is long."""
    begin = max(0, stat.size - _TAIL_BYTES)
    try:
        tail = bytes(store.get_range(stat.name, begin, stat.size - begin))
        trailer = read_trailer(tail, stat.size, stat.name)
        if trailer.offset >= begin:
            stored = tail[trailer.offset - begin : -TRAILER_BYTES]
        else:
            stored = bytes(store.get_range(stat.name, trailer.offset, trailer.stored))
    except Absent as error:
        raise CorruptDataError(
            f"The archive object {stat.name} of {store.url} went while the archive was being read. "
            "Open it again."
        ) from error
    return bytes.fromhex(stat.name.rpartition("/")[2]), read_index(stored, trailer, stat.name)
