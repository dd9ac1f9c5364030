"""How dead space becomes free: live remains move into new packs, dead objects go after a while.

Not a rewrite in place: an object is only ever unlinked, whole, after the grace time.
What replaces an object is in the bucket before the object goes, and no manifest names it then: so
an object that a manifest names and the bucket does not hold was lost, and its keys are known.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

import msgspec

from memories.backends.bucket.damage import hides_values
from memories.backends.bucket.local_db import State
from memories.backends.bucket.location import Place, new_token, object_name
from memories.backends.bucket.object_index import EVERYTHING, NOWHERE, Ledger
from memories.backends.bucket.objectstore import ObjectStore
from memories.backends.bucket.pack import Contents, Index, finish
from memories.backends.bucket.uploader import Shipper
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


class Reclaimer:
    """Moves and unlinks. One pass at a time; the caller sees to that."""

    def __init__(
        self,
        store: ObjectStore,
        state: State,
        ledger: Ledger,
        shipper: Shipper,
        read: Callable[[Record], memoryview],
        rewrite: Callable[[Record, memoryview], Record],
        wall: Callable[[], float],
    ) -> None:
        self._store = store
        self._state = state
        self._ledger = ledger
        self._shipper = shipper
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
        if hides_values(self._state):
            return Reclaimed(0, 0, 0)
        self._forget_needless()
        moved = sum(self.move_frames(token) for token in self._sparse())
        self._shipper.flush()
        dead = self._dead(grace_seconds)
        self.retract(dead)
        # Values go before the tombstones that hide them, many of which are needless then.
        freed = [self._unlink(token) for token in dead if not self._has_tombstones(token)]
        self._forget_needless()
        rest = [token for token in dead if self.holds(token)]
        for token in rest:
            self.move_tombstones(token)
        self._shipper.flush()
        freed += [self._unlink(token) for token in rest]
        freed = [size for size in freed if size]
        return Reclaimed(moved, len(freed), sum(freed))

    def write_manifests(self, *, least: int = 1, replace: bool = True) -> int:
        """Sum up objects that no manifest covers, when there are `least` of them.

        With `replace`, manifests of no more objects than these are written anew with them, so that
        there are few.
        """
        self._shipper.flush()  # What replaced a frame is there before a manifest forgets the frame.
        tokens = [t for (t,) in self._state.rows(
            "SELECT token FROM object WHERE status = 'there' AND manifest IS NULL"
        )]  # fmt: skip
        if len(tokens) < least:
            return 0
        replaced = []
        for name, count in self._state.rows(
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

    def retract(self, tokens: Iterable[bytes]) -> None:
        """Let no manifest name `tokens` any more, and delete manifests that the map does not know.

        Those are what a crash left, and might name what has gone since.
        """
        leaving = set(tokens)
        if not leaving:
            return
        named = {
            name
            for token in leaving
            for (name,) in self._state.rows("SELECT manifest FROM object WHERE token = ?", token)
            if name is not None
        }
        rest = [token for name in named for token in self._covered(name) if token not in leaving]
        self._write_manifests(rest)
        with self._state.transaction() as state:
            for token in leaving:
                state.run("UPDATE object SET manifest = NULL WHERE token = ?", token)
        known = self._state.rows("SELECT DISTINCT manifest FROM object WHERE manifest IS NOT NULL")
        kept = {f"manifests/{name.hex()}" for (name,) in known}
        for stat in self._store.list("manifests/"):
            if stat.name not in kept:
                self._store.delete(stat.name)

    def _forget_needless(self) -> None:
        self._state.run(_NEEDLESS_LINKS)
        self._state.run(_NEEDLESS, EVERYTHING.encode())
        self._state.run(_NEEDLESS_FOR_ALL, EVERYTHING.encode())
        self._state.run("DELETE FROM entry WHERE token = ? AND state = 0", NOWHERE)

    def _has_tombstones(self, token: bytes) -> bool:
        """Return whether an object says of others what must go on being said, links included."""
        query = "SELECT 1 FROM entry WHERE token = ? AND state IN (2, 3)"
        return self._state.row(query, token) is not None

    def holds(self, token: bytes) -> bool:
        """Return whether the map knows an object, which then was not unlinked."""
        return self._state.row("SELECT 1 FROM object WHERE token = ?", token) is not None

    def _sparse(self) -> list[bytes]:
        return [token for (token,) in self._state.rows(
            "SELECT token FROM object WHERE status = 'there' AND live > 0 AND live < ? * size",
            LEAST_LIVE,
        )]  # fmt: skip

    def move_frames(self, token: bytes, *, but: Collection[str] = ()) -> int:
        """Write what is live in an object again, into packs, and return how many frames that is.

        Those of the keys in `but` stay.
        """
        moving = [
            item for item in self._ledger.contents(token).stored if item.record.key not in but
        ]
        for item in moving:
            place = Place(token, item.offset, item.length).encode()
            record = msgspec.structs.replace(item.record, place=place)
            self._rewrite(record, self._read(record))
        return len(moving)

    def _dead(self, grace_seconds: float) -> list[bytes]:
        latest = self._wall() - grace_seconds
        return [token for (token,) in self._state.rows(
            "SELECT token FROM object WHERE status = 'leaving' OR (status = 'there' AND live = 0 "
            "AND retired_at <= ? AND token NOT IN (SELECT token FROM pin) "
            "AND token NOT IN (SELECT token FROM prepared))", latest,
        )]  # fmt: skip

    def move_tombstones(self, token: bytes) -> None:
        """Let the open pack say which keys are gone, instead of an object that is to go."""
        with self._state.transaction() as state:
            if self._has_tombstones(token):
                fresh, _ = self._shipper.open_pack()
                # A link stays behind where the frame itself lies in the fresh pack by now.
                state.run(
                    "UPDATE OR IGNORE entry SET token = ? WHERE token = ? AND state IN (2, 3)",
                    fresh, token,
                )  # fmt: skip

    def _unlink(self, token: bytes) -> int:
        with self._state.transaction() as state:
            found = state.row(
                "SELECT size FROM object WHERE token = ? AND live = 0 "
                "AND token NOT IN (SELECT token FROM pin) "
                "AND token NOT IN (SELECT token FROM prepared)", token,
            )  # fmt: skip
            if found is None:
                return 0  # Pinned or written into since it was chosen.
            state.run("UPDATE object SET status = 'leaving' WHERE token = ?", token)
        self._store.delete(object_name(token))
        with self._state.transaction() as state:
            state.run("DELETE FROM entry WHERE token = ?", token)
            state.run("DELETE FROM object WHERE token = ?", token)
            state.add("physical", -found[0])
        return int(found[0])

    def _covered(self, manifest: bytes) -> list[bytes]:
        query = "SELECT token FROM object WHERE manifest = ?"
        return [token for (token,) in self._state.rows(query, manifest)]

    def _drop_manifest(self, name: bytes | None) -> None:
        query = "SELECT 1 FROM object WHERE manifest = ?"
        if name is not None and self._state.row(query, name) is None:
            self._store.delete(f"manifests/{name.hex()}")

    def _write_manifests(self, tokens: Iterable[bytes]) -> int:
        """Sum up `tokens` in as many manifests as that takes, and return how many."""
        written, entries = 0, 0
        covers: dict[bytes, tuple[int, int, int, Contents]] = {}
        for token in tokens:
            found = self._state.row(
                "SELECT epoch, sequence, size FROM object WHERE token = ?", token
            )
            if found is None:
                continue
            contents = self._ledger.contents(token)
            covers[token] = (*found, contents)
            entries += len(contents.stored) + len(contents.removed)
            if len(covers) == MANIFEST_OBJECTS or entries >= MANIFEST_ENTRIES:
                self._write_manifest(covers)
                written, entries, covers = written + 1, 0, {}
        if covers:
            self._write_manifest(covers)
            written += 1
        return written

    def _write_manifest(self, covers: dict[bytes, tuple[int, int, int, Contents]]) -> None:
        name = new_token()
        number = self._state.number
        index = Index(
            self._state.identity(), number("epoch"), number("sequence"), self._wall(),
            covers=covers, exact=True,
        )  # fmt: skip
        self._store.put(f"manifests/{name.hex()}", [finish(index, 0)])
        with self._state.transaction() as state:
            for token in covers:
                state.run("UPDATE object SET manifest = ? WHERE token = ?", name, token)
