"""Garbage collection: live frames move out of sparse objects, and dead objects are unlinked later.

An object is never rewritten, only unlinked as a whole, after the grace time. Before that its
replacement is in the bucket and no manifest names it. So an object that a manifest names and the
bucket does not contain was lost, and its keys are known.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

import msgspec

from memories.backends.bucket.damage import hides_values
from memories.backends.bucket.location import (
    ObjectLocation,
    is_manifest,
    new_token,
    object_name,
)
from memories.backends.bucket.object_index import EVERYTHING, NOWHERE
from memories.backends.bucket.pack import PackContents, PackIndex, finish
from memories.backends.bucket.rebuild import BucketParts
from memories.backends.bucket.staging import StagedPacks
from memories.backends.bucket.uploader import Uploader
from memories.model.record import Record

LEAST_LIVE = 0.5  # An object whose live share is smaller is worth moving the rest of it.
MANIFEST_OBJECTS = 256
MANIFEST_ENTRIES = 200_000  # So that its index stays far below what one may unfold to.
PASS_SECONDS = 3600.0

_NEEDLESS = """
DELETE FROM entry WHERE state = 2 AND key != ?1 AND NOT EXISTS (
    SELECT 1 FROM entry AS other WHERE other.key = entry.key AND other.state != 2
)
"""
_NEEDLESS_FOR_ALL = """
DELETE FROM entry WHERE state = 2 AND key = ?1 AND NOT EXISTS (
    SELECT 1 FROM entry AS other WHERE other.state = 0 AND other.version <= entry.version
)
"""


# What a link speaks of was replaced, removed, or has been written again.
_NEEDLESS_LINKS = """
DELETE FROM entry WHERE state = 3 AND NOT EXISTS (
    SELECT 1 FROM entry AS live
    WHERE live.key = entry.key AND live.version = entry.version AND live.state = 1
)
"""


class Reclaimed(NamedTuple):
    """What one pass did."""

    moved: int  # Frames written again.
    unlinked: int  # Objects gone.
    freed: int  # Bytes of those.


class GarbageCollector:
    """Moves and unlinks. One pass at a time; the caller sees to that."""

    def __init__(
        self,
        bucket: BucketParts,
        packs: StagedPacks,
        uploader: Uploader,
        read: Callable[[Record], memoryview],
        rewrite: Callable[[Record, memoryview], Record],
        wall: Callable[[], float],
    ) -> None:
        self._store = bucket.store
        self._db = bucket.db
        self._index = bucket.index
        self._packs = packs
        self._uploader = uploader
        self._read = read
        self._rewrite = rewrite
        self._wall = wall
        self._next = wall() + PASS_SECONDS

    def is_due(self) -> bool:
        """Return whether the latest pass was long enough ago."""
        return self._wall() >= self._next

    def reclaim(self, grace_seconds: float) -> Reclaimed:
        """Move what is live out of sparse objects, then unlink what was dead for long enough.

        Nothing is unlinked while some object cannot be read: it may name or protect what seems
        dead.
        """
        self._next = self._wall() + PASS_SECONDS
        if hides_values(self._db):
            return Reclaimed(0, 0, 0)
        self._forget_needless()
        moved = sum(self.move_frames(token) for token in self._sparse())
        self._uploader.flush()
        dead = self._dead(grace_seconds)
        self.remove_from_manifests(dead)
        # Values go before the tombstones that hide them, many of which are needless then.
        freed = [self._unlink(token) for token in dead if not self._has_tombstones(token)]
        self._forget_needless()
        rest = [token for token in dead if self.holds(token)]
        for token in rest:
            self.move_tombstones(token)
        self._uploader.flush()
        freed += [self._unlink(token) for token in rest]
        freed = [size for size in freed if size]
        return Reclaimed(moved, len(freed), sum(freed))

    def write_manifests(self, *, least: int = 1, replace: bool = True) -> int:
        """Sum up objects that no manifest covers, when there are `least` of them.

        With `replace`, manifests of no more objects than these are written anew with them, so that
        there are few.
        """
        self._uploader.flush()  # A frame's replacement is there before a manifest forgets it.
        tokens = [t for (t,) in self._db.rows(
            "SELECT token FROM object WHERE status = 'there' AND manifest IS NULL"
        )]  # fmt: skip
        if len(tokens) < least:
            return 0
        replaced = []
        for name, count in self._db.rows(
            "SELECT manifest, count(*) FROM object WHERE manifest IS NOT NULL GROUP BY manifest "
            "HAVING count(*) < ? ORDER BY count(*)", MANIFEST_OBJECTS,
        ):  # fmt: skip
            if count > len(tokens) or not replace:
                break
            tokens += self._covered(name)
            replaced.append(name)
        written = self._write_manifests(tokens)
        for name in replaced:
            self._drop_manifest(name)
        return written

    def remove_from_manifests(self, tokens: Iterable[bytes]) -> None:
        """Rewrite the manifests that name `tokens`, and delete those that the map does not know.

        Those are what a crash left, and might name what has gone since.
        """
        leaving = set(tokens)
        if not leaving:
            return
        named = {
            name
            for token in leaving
            for (name,) in self._db.rows("SELECT manifest FROM object WHERE token = ?", token)
            if name is not None
        }
        rest = [token for name in named for token in self._covered(name) if token not in leaving]
        self._write_manifests(rest)
        with self._db.transaction() as db:
            for token in leaving:
                db.run("UPDATE object SET manifest = NULL WHERE token = ?", token)
        known = self._db.rows("SELECT DISTINCT manifest FROM object WHERE manifest IS NOT NULL")
        kept = {f"manifests/{name.hex()}" for (name,) in known}
        for stat in self._store.list("manifests/"):
            if stat.name not in kept and is_manifest(stat.name):
                self._store.delete(stat.name)

    def _forget_needless(self) -> None:
        self._db.run(_NEEDLESS_LINKS)
        self._db.run(_NEEDLESS, EVERYTHING.encode())
        self._db.run(_NEEDLESS_FOR_ALL, EVERYTHING.encode())
        self._db.run("DELETE FROM entry WHERE token = ? AND state = 0", NOWHERE)

    def _has_tombstones(self, token: bytes) -> bool:
        """Return whether an object says of others what must go on being said, links included."""
        query = "SELECT 1 FROM entry WHERE token = ? AND state IN (2, 3)"
        return self._db.row(query, token) is not None

    def holds(self, token: bytes) -> bool:
        """Return whether the map knows an object, which then was not unlinked."""
        return self._db.row("SELECT 1 FROM object WHERE token = ?", token) is not None

    def _sparse(self) -> list[bytes]:
        return [token for (token,) in self._db.rows(
            "SELECT token FROM object WHERE status = 'there' AND live > 0 AND live < ? * size",
            LEAST_LIVE,
        )]  # fmt: skip

    def move_frames(self, token: bytes, *, except_keys: Collection[str] = ()) -> int:
        """Write what is live in an object again, into packs, and return how many frames that is.

        Those of `except_keys` stay.
        """
        moving = [
            item
            for item in self._index.contents(token).stored
            if item.record.key not in except_keys
        ]
        for item in moving:
            place = ObjectLocation(token, item.offset, item.length, item.record.place).encode()
            record = msgspec.structs.replace(item.record, place=place)
            self._rewrite(record, self._read(record))
        return len(moving)

    def _dead(self, grace_seconds: float) -> list[bytes]:
        latest = self._wall() - grace_seconds
        return [token for (token,) in self._db.rows(
            "SELECT token FROM object WHERE status = 'leaving' OR (status = 'there' AND live = 0 "
            "AND retired_at <= ? AND token NOT IN (SELECT token FROM pin) "
            "AND token NOT IN (SELECT token FROM prepared))", latest,
        )]  # fmt: skip

    def move_tombstones(self, token: bytes) -> None:
        """Move the tombstones and links of an object that will be unlinked into the open pack."""
        with self._db.transaction() as db:
            if self._has_tombstones(token):
                fresh, _ = self._packs.open_pack()
                # A link stays behind where the frame itself lies in the fresh pack by now.
                db.run(
                    "UPDATE OR IGNORE entry SET token = ? WHERE token = ? AND state IN (2, 3)",
                    fresh, token,
                )  # fmt: skip

    def _unlink(self, token: bytes) -> int:
        with self._db.transaction() as db:
            found = db.row(
                "SELECT size FROM object WHERE token = ? AND live = 0 "
                "AND token NOT IN (SELECT token FROM pin) "
                "AND token NOT IN (SELECT token FROM prepared)", token,
            )  # fmt: skip
            if found is None:
                return 0  # Pinned or written into since it was chosen.
            db.run("UPDATE object SET status = 'leaving' WHERE token = ?", token)
        self._store.delete(object_name(token))
        with self._db.transaction() as db:
            db.run("DELETE FROM entry WHERE token = ?", token)
            db.run("DELETE FROM object WHERE token = ?", token)
            db.add("physical", -found[0])
        return int(found[0])

    def _covered(self, manifest: bytes) -> list[bytes]:
        query = "SELECT token FROM object WHERE manifest = ?"
        return [token for (token,) in self._db.rows(query, manifest)]

    def _drop_manifest(self, name: bytes | None) -> None:
        query = "SELECT 1 FROM object WHERE manifest = ?"
        if name is not None and self._db.row(query, name) is None:
            self._store.delete(f"manifests/{name.hex()}")

    def _write_manifests(self, tokens: Iterable[bytes]) -> int:
        """Sum up `tokens` in as many manifests as that takes, and return how many."""
        written, entries = 0, 0
        covers: dict[bytes, tuple[int, int, int, PackContents]] = {}
        for token in tokens:
            found = self._db.row("SELECT epoch, sequence, size FROM object WHERE token = ?", token)
            if found is None:
                continue
            contents = self._index.contents(token)
            covers[token] = (*found, contents)
            entries += len(contents.stored) + len(contents.removed)
            if len(covers) == MANIFEST_OBJECTS or entries >= MANIFEST_ENTRIES:
                self._write_manifest(covers)
                written, entries, covers = written + 1, 0, {}
        if covers:
            self._write_manifest(covers)
            written += 1
        return written

    def _write_manifest(self, covers: dict[bytes, tuple[int, int, int, PackContents]]) -> None:
        name = new_token()
        number = self._db.number
        index = PackIndex(
            self._db.identity(), number("epoch"), number("sequence"), self._wall(),
            covers=covers, exact=True,
        )  # fmt: skip
        manifest = f"manifests/{name.hex()}"
        self._store.put(manifest, [finish(index, 0, manifest, self._db.seal)])
        with self._db.transaction() as db:
            for token in covers:
                db.run("UPDATE object SET manifest = ? WHERE token = ?", name, token)
