"""Compares the map with the objects in the bucket, and each object with its own index.

The caller says how a frame is verified. If an object's index is damaged, the map names its keys. A
repair writes anew what can still be read, and removes only the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

from memories.backends.base import Problem
from memories.backends.bucket.changes import Changes
from memories.backends.bucket.damage import Damage, aside, known_damage, set_aside, unread
from memories.backends.bucket.garbage_collection import GarbageCollector
from memories.backends.bucket.location import ObjectLocation, is_manifest, object_name, token_of
from memories.backends.bucket.objectstore import Absent, Stat
from memories.backends.bucket.rebuild import BucketParts, fetch_index, fetch_indexes
from memories.backends.bucket.uploader import Uploader
from memories.errors import ArchivedError, CorruptDataError
from memories.model.record import Record
from memories.progress import Step

Verify = Callable[[Record, memoryview], None]

_TOGETHER_BYTES = 16 * 1024 * 1024  # Objects up to here are read many at once.


class CheckedObject(NamedTuple):
    """What was found in an object."""

    token: bytes
    live: int  # Bytes of its live frames.
    what: str  # What is wrong with the object, if anything is.
    damaged: list[tuple[Record, str]]  # Live frames, and what is wrong with them.
    unchecked: bool  # Whether it must be restored from an archive class before it can be read.


class BucketCheck(NamedTuple):
    """What a check looks at, and what mends it."""

    bucket: BucketParts
    read: Callable[[Record], memoryview]
    verify: Verify | None
    uploader: Uploader
    changes: Changes
    collector: GarbageCollector
    maintaining: AbstractContextManager[object]  # Held while objects are moved and unlinked.
    now: float

    def run(self, repair: bool, progress: Step | None) -> list[Problem]:
        """Return what is missing, damaged or unknown; with `repair`, mend what can be mended."""
        problems = self._unreadable(repair)
        there: list[tuple[Stat, str]] = []
        with self.maintaining:
            known = self.bucket.db.rows("SELECT token, size FROM object WHERE status = 'there'")
            # Listed afterwards: what was uploaded meanwhile is not missing.
            sizes = {stat.name: stat.size for stat in self.bucket.store.list("objects/")}
            for token, size in known:
                found = sizes.get(object_name(token))
                if found is None:
                    problems += self._missing(token, repair)
                else:
                    what = "" if found == size else f"it has {found} bytes instead of {size}"
                    there.append((Stat(object_name(token), found, 0.0), what))
            problems += self._unknown(sizes)
            problems += self._manifests(repair)
        problems += self._contents(there, repair, progress)
        if repair:
            self.uploader.flush()
        return problems

    def _unreadable(self, repair: bool) -> list[Problem]:
        """Return what could not be read when the bucket was; with `repair`, set it aside."""
        problems = []
        for damage in known_damage(self.bucket.db):
            if repair:
                set_aside(self.bucket.store, self.bucket.db, damage)
            what = f"the archive object {damage.name} cannot be read: {damage.what}"
            problems.append(Problem(None, what, repair))
        return problems

    def _manifests(self, repair: bool) -> list[Problem]:
        """Return which manifests are damaged or missing; with `repair`, write others."""
        db = self.bucket.db
        known = {
            f"manifests/{name.hex()}": name
            for (name,) in db.rows("SELECT DISTINCT manifest FROM object")
            if name is not None
        }
        passed = aside(db)
        listed = [
            one
            for one in self.bucket.store.list("manifests/")
            if one.name not in passed and is_manifest(one.name)
        ]
        there = {one.name for one in listed}
        wrong = dict.fromkeys(known.keys() - there, "it is missing")
        for stat, index, what in fetch_indexes(self.bucket, listed, patient=False):
            if index is None:
                wrong[stat.name] = what
        for name, what in wrong.items() if repair else ():
            if name in there:
                set_aside(self.bucket.store, db, Damage(name, what))
            db.run("UPDATE object SET manifest = NULL WHERE manifest = ?", known.get(name))
        if wrong and repair:
            self.collector.write_manifests(replace=False)
        noted = {one.name for one in known_damage(db)}
        return [
            Problem(None, f"{name}, which sums up what objects hold, is damaged: {what}", repair)
            for name, what in wrong.items()
            if name not in noted  # Else it was said already.
        ]

    def _unknown(self, sizes: dict[str, int]) -> Iterator[Problem]:
        known = {token for (token,) in self.bucket.db.rows("SELECT token FROM object")}
        known |= unread(self.bucket.db)
        for name, size in sizes.items():
            token = token_of(name)
            if token is not None and token not in known:
                yield Problem(None, f"the object {name} ({size} bytes) is in no map", False)

    def _missing(self, token: bytes, repair: bool) -> Iterator[Problem]:
        records = self._records(token)
        for record in records:
            what = f"its archive object {token.hex()} is missing: it was deleted"
            yield Problem(record.key, what, repair)
        if not records:
            yield Problem(None, f"the dead archive object {token.hex()} is missing", repair)
        if repair:
            self._forget_object(token, records)

    def _contents(
        self, there: list[tuple[Stat, str]], repair: bool, progress: Step | None
    ) -> Iterator[Problem]:
        """Yield what is wrong within objects, the small ones of which are read together."""
        query = "SELECT token FROM object WHERE status IN ('open', 'sealed')"
        for (token,) in self.bucket.db.rows(query):
            yield from self._problems_of(self._examine(token, "", archived=False), repair, progress)
        small = [one for one in there if one[0].size <= _TOGETHER_BYTES]
        for found in self.bucket.downloads.map(self._examine_object, small):
            yield from self._problems_of(found, repair, progress)
        for one in there:
            if one[0].size > _TOGETHER_BYTES:
                yield from self._problems_of(self._examine_object(one), repair, progress)

    def _examine_object(self, one: tuple[Stat, str]) -> CheckedObject:
        stat, what = one
        token = bytes.fromhex(stat.name.rpartition("/")[2])
        archived = False
        try:
            fetch_index(self.bucket.store, stat, self.bucket.db.seal)
        except CorruptDataError as error:
            what = what or str(error)
        except ArchivedError:
            archived = True
        except Absent:
            what = ""  # Unlinked meanwhile, or reported by the next check.
        return self._examine(token, what, archived=archived)

    def _examine(self, token: bytes, what: str, *, archived: bool) -> CheckedObject:
        records = self._records(token)
        live = sum(record.stored for record in records)
        damaged = []
        for record in [] if archived else records:
            reason = self._fault(record)
            if reason:
                damaged.append((record, reason))
        return CheckedObject(token, live, what, damaged, archived)

    def _problems_of(
        self, look: CheckedObject, repair: bool, progress: Step | None
    ) -> Iterator[Problem]:
        name = object_name(look.token)
        for record, reason in look.damaged:
            yield Problem(record.key, f"its archived copy is damaged: {reason}", repair)
        if look.what:
            what = f"another machine cannot read the index of archive object {name}: {look.what}"
            yield Problem(None, what, repair)
        if look.unchecked:
            what = f"the archive object {name} lies in an archive class and was not looked at"
            yield Problem(None, what, False, True)
        if repair and (look.what or look.damaged):
            self._set_aside(look, name)
        if progress is not None:
            progress(look.live)

    def _set_aside(self, look: CheckedObject, name: str) -> None:
        """Write the readable frames of an object anew, and mark it as damaged for every machine."""
        lost = [record for record, _ in look.damaged]
        with self.maintaining:
            self.collector.move_frames(look.token, except_keys={record.key for record in lost})
            self.uploader.flush()
            if self.collector.holds(look.token):
                reason = look.what or "frames in it are damaged"
                set_aside(self.bucket.store, self.bucket.db, Damage(name, reason))
                self._forget_object(look.token, lost)

    def _forget_object(self, token: bytes, lost: list[Record]) -> None:
        """Remove an object and its values from the map, the manifests and other machines' maps."""
        self.collector.move_tombstones(token)
        self.collector.remove_from_manifests([token])
        with self.bucket.db.transaction():
            self.bucket.index.forget(token, self.now)
            for record in lost:
                # What is older stays hidden; the same version may come back from another tier.
                self.changes.remove(record.key, record.version - 1)
        self.uploader.flush()

    def _records(self, token: bytes) -> list[Record]:
        """Return the records of the live frames in an object."""
        records = []
        for item in self.bucket.index.contents(token).stored:
            place = ObjectLocation(token, item.offset, item.length, item.record.place).encode()
            found = self.bucket.index.find(item.record.key)
            if found is not None and found.place == place:
                records.append(found)
        return records

    def _fault(self, record: Record) -> str:
        """Return what is wrong with a frame that is still where it was."""
        try:
            frame = self.read(record)
            if self.verify is not None:
                self.verify(record, frame)
        except CorruptDataError as error:
            return str(error) if self.bucket.index.find(record.key) == record else ""
        return ""
