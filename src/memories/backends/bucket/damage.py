"""The objects of a bucket that could not be read, by name.

A repair sets such an object aside: a small mark in the bucket tells other machines to skip it. The
object itself stays where it is.
"""

from __future__ import annotations

from typing import NamedTuple

from memories.backends.bucket.local_db import LocalDb
from memories.backends.bucket.location import token_of
from memories.backends.bucket.objectstore import ObjectStore

_MARKS = "aside/"


class Damage(NamedTuple):
    """An object that could not be read, and why."""

    name: str
    what: str


def record_damage(db: LocalDb, name: str, what: str) -> None:
    """Write down that an object could not be read."""
    db.run("INSERT OR IGNORE INTO damage VALUES (?, ?, 0)", name, db.cells.text(what))


def known_damage(db: LocalDb) -> list[Damage]:
    """Return what could not be read and was not set aside."""
    rows = db.rows("SELECT name, what FROM damage WHERE aside = 0 ORDER BY name")
    return [Damage(name, db.cells.open_text(what)) for name, what in rows]


def hides_values(db: LocalDb) -> bool:
    """Return whether something is unread that may name values, or protect objects."""
    query = "SELECT 1 FROM damage WHERE aside = 0 AND name NOT LIKE 'manifests/%'"
    return db.row(query) is not None


def set_aside(store: ObjectStore, db: LocalDb, damage: Damage) -> None:
    """Mark a damaged object, so that no machine reads it again."""
    name, what = _MARKS + damage.name.replace("/", "-"), damage.what.encode()
    store.put(name, [what if db.seal is None else db.seal.note(name, what)])
    db.run(
        "INSERT OR REPLACE INTO damage VALUES (?, ?, 1)", damage.name, db.cells.text(damage.what)
    )


def read_aside(store: ObjectStore, db: LocalDb) -> None:
    """Learn what was set aside."""
    for stat in store.list(_MARKS):
        name = stat.name.removeprefix(_MARKS).replace("-", "/", 1)
        db.run("INSERT OR REPLACE INTO damage VALUES (?, 'set aside', 1)", name)


def aside(db: LocalDb) -> set[str]:
    """Return the names of what was set aside."""
    return {name for (name,) in db.rows("SELECT name FROM damage WHERE aside = 1")}


def unread(db: LocalDb) -> set[bytes]:
    """Return the tokens of the objects that nothing is known of, set aside or not."""
    names = db.rows("SELECT name FROM damage")
    return {token for (name,) in names if (token := token_of(name)) is not None}
