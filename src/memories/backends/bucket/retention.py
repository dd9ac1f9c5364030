"""Objects that must stay because something else, a snapshot for example, refers to them.

A holder has a name, pins objects, and releases them as a whole. One small object per holder tells
other machines of its pins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from memories.backends.bucket.damage import aside, record_damage
from memories.backends.bucket.local_db import LocalDb
from memories.backends.bucket.location import ObjectLocation
from memories.backends.bucket.objectstore import Absent, ObjectStore
from memories.errors import ArchivedError, CorruptDataError


class _Pins(msgspec.Struct, frozen=True):
    holder: str
    tokens: list[bytes]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Pins).decode


def pin(store: ObjectStore, db: LocalDb, holder: str, tokens: Iterable[bytes]) -> None:
    """Hold objects for `holder`, besides those it holds already.

    The caller serialises the changes of pins. The map is changed first, so that a failure of the
    store leaves too much held rather than too little.
    """
    with db.transaction():
        for token in tokens:
            _check_held(db, holder, token)
            db.run("INSERT OR IGNORE INTO pin VALUES (?, ?)", db.cells.text(holder), token)
    _write(store, db, holder)


def unpin(store: ObjectStore, db: LocalDb, holder: str, tokens: Iterable[bytes]) -> None:
    """Release objects that `holder` holds: all of them when `tokens` is empty."""
    chosen = list(tokens)
    name = db.cells.text(holder)
    with db.transaction():
        if not chosen:
            db.run("DELETE FROM pin WHERE holder = ?", name)
        for token in chosen:
            db.run("DELETE FROM pin WHERE holder = ? AND token = ?", name, token)
    _write(store, db, holder)


def holders(db: LocalDb) -> dict[str, int]:
    """Return the holders of objects, and how many each."""
    rows = db.rows("SELECT holder, COUNT(*) FROM pin GROUP BY holder")
    return dict(sorted((db.cells.open_text(holder), count) for holder, count in rows))


def require_there(store: ObjectStore, places: Iterable[ObjectLocation]) -> None:
    """Raise CorruptDataError unless the bucket holds every object that `places` lie in."""
    for name in sorted({place.name for place in places}):
        try:
            store.get_range(name, 0, 1)
        except ArchivedError:
            continue  # It is there, and takes hours to come.
        except Absent as error:
            raise CorruptDataError(f"the archive {store.url} no longer contains {name}") from error


def load_pins(store: ObjectStore, db: LocalDb) -> None:
    """Read every holder's object into the map, within a transaction."""
    ignored = aside(db)
    for stat in store.list("pins/"):
        if stat.name in ignored:
            continue
        try:
            data = store.get(stat.name)[0]
            pins = _decode(data if db.seal is None else db.seal.open_note(stat.name, data))
        except Absent:
            continue  # Its holder has released all since the listing.
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, CorruptDataError):
            record_damage(
                db,
                stat.name,
                "it says which objects a snapshot protects, and is malformed: nothing is unlinked",
            )
            continue
        for token in pins.tokens:
            db.run("INSERT OR IGNORE INTO pin VALUES (?, ?)", db.cells.text(pins.holder), token)


def _check_held(db: LocalDb, holder: str, token: bytes) -> None:
    found = db.row("SELECT status FROM object WHERE token = ?", token)
    if found is None or found[0] == "leaving":
        raise CorruptDataError(
            f"{holder} refers to the archive object {token.hex()}, which has been unlinked"
        )


def _write(store: ObjectStore, db: LocalDb, holder: str) -> None:
    held = db.cells.text(holder)
    name = f"pins/{hashlib.sha256(held.encode()).hexdigest()}"
    tokens = [token for (token,) in db.rows("SELECT token FROM pin WHERE holder = ?", held)]
    if tokens:
        data = _encode(_Pins(holder, tokens))
        store.put(name, [data if db.seal is None else db.seal.note(name, data)])
    else:
        store.delete(name)
