"""Uploads: a large frame as an object of its own, small frames and tombstones in packs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from memories.backends.bucket.changes import Changes
from memories.backends.bucket.local_db import LocalDb
from memories.backends.bucket.location import ObjectLocation, new_token, object_name
from memories.backends.bucket.object_index import ObjectIndex
from memories.backends.bucket.objectstore import Buffer, ObjectStore
from memories.backends.bucket.options import Progress
from memories.backends.bucket.pack import PackContents, PackEntry, PackIndex, finish, padding
from memories.backends.bucket.staging import StagedPacks
from memories.foundation.fork_lock import new_lock
from memories.model.record import Record

_PAD = bytes(64)


class Uploader:
    """Puts objects into the bucket. Every method may be called from any thread.

    `progress` is called, in the upload of a large frame, with the bytes that are sent or about to
    be sent.
    """

    def __init__(
        self,
        store: ObjectStore,
        db: LocalDb,
        index: ObjectIndex,
        packs: StagedPacks,
        changes: Changes,
        wall: Callable[[], float],
        progress: Progress | None,
    ) -> None:
        self._store = store
        self._db = db
        self._index = index
        self._packs = packs
        self._changes = changes
        self._wall = wall
        self._progress = progress
        self._uploading = new_lock()

    def upload(
        self, record: Record, frame: Sequence[Buffer], length: int, head: bytes = b""
    ) -> Record:
        """Put a large frame as an object of its own, and prepare it as a value of its key.

        `head` is that of an encrypted frame.
        """
        location = ObjectLocation(new_token(), 0, length, head)
        with self._db.transaction():
            sequence = self._index.add_object(location.token, "intended", self._wall())
        bare = msgspec.structs.replace(record, place=head, stored=length)
        gap = padding(length)
        contents = PackContents([PackEntry(0, length, bare)])
        index = self._pack_index(sequence, contents)
        end = finish(index, length + gap, location.name, self._db.seal)
        progress = None if self._progress is None else partial(self._progress, record.key)
        try:
            self._store.put(
                location.name,
                [*frame, _PAD[:gap], end],
                _counted(progress, length + gap + len(end)),
            )
        except BaseException:
            # It may be in the bucket nevertheless: `delete_failed` deletes it once that answers.
            self._db.run("UPDATE object SET status = 'failed' WHERE token = ?", location.token)
            raise
        uploaded = msgspec.structs.replace(record, place=location.encode(), stored=length)
        with self._db.transaction():
            self._index.mark_uploaded(location.token, length + gap + len(end))
            self._changes.prepare_uploaded(uploaded)
        return uploaded

    def flush(self) -> None:
        """Upload everything that is staged."""
        with self._uploading:
            self._packs.seal()
            self._upload_sealed()

    def flush_full(self, before: Callable[[], None]) -> None:
        """Upload the packs that are full, after calling `before` if there are any."""
        if self._packs.has_sealed:
            before()
            with self._uploading:
                self._upload_sealed()

    def flush_through(self, token: bytes) -> None:
        """Return once the pack `token` is uploaded; threads that wait share the next upload."""
        with self._uploading:
            if self._packs.contains(token):
                self._packs.seal()
                self._upload_sealed()

    def mark_interrupted(self) -> list[str]:
        """Mark the uploads that a killed process has begun as failed; return the objects' names."""
        began = self._db.rows("SELECT token FROM object WHERE status IN ('intended', 'sealed')")
        self._db.run("UPDATE object SET status = 'failed' WHERE status = 'intended'")
        return [object_name(token) for (token,) in began]

    def delete_failed(self) -> None:
        """Delete the objects of uploads that failed."""
        for (token,) in self._db.rows("SELECT token FROM object WHERE status = 'failed'"):
            self._store.delete(object_name(token))
            self._db.run("DELETE FROM object WHERE token = ?", token)

    def _upload_sealed(self) -> None:
        for token, sequence, size in self._packs.sealed():
            with self._db.transaction() as db:
                self._packs.mark_indexed(token)
                contents = self._index.contents(token)
                awaited = db.row(
                    "SELECT 1 FROM pin WHERE token = ?1 UNION ALL "
                    "SELECT 1 FROM prepared WHERE token = ?1", token,
                )  # fmt: skip
            if contents.stored or contents.removed or contents.linked or awaited:
                self._upload_pack(token, sequence, size, contents)
            else:
                self._drop_pack(token, size)
        self._packs.recheck_sealed()

    def _upload_pack(self, token: bytes, sequence: int, size: int, contents: PackContents) -> None:
        body: list[Buffer] = []
        for frame in self._packs.frames(token):
            body += [frame, _PAD[: padding(len(frame))]]
        index = self._pack_index(sequence, contents)
        end = finish(index, size, object_name(token), self._db.seal)
        self._store.put(object_name(token), [*body, end])
        with self._db.transaction() as db:
            db.add("physical", -size)
            self._index.mark_uploaded(token, size + len(end))
            db.run("DELETE FROM staged WHERE token = ?", token)
        self._packs.forget(token)

    def _drop_pack(self, token: bytes, size: int) -> None:
        with self._db.transaction() as db:
            for table in ("object", "staged", "entry"):
                db.run(f"DELETE FROM {table} WHERE token = ?", token)
            db.add("physical", -size)
        self._packs.forget(token)

    def _pack_index(self, sequence: int, contents: PackContents) -> PackIndex:
        return PackIndex(
            self._db.identity(), self._db.number("epoch"), sequence, self._wall(), contents
        )


def _counted(
    progress: Callable[[int, int], None] | None, total: int
) -> Callable[[int], None] | None:
    if progress is None:
        return None
    done = 0

    def sending(count: int) -> None:
        nonlocal done
        done = min(total, done + count)  # What is sent again is not progress.
        progress(done, total)

    return sending
