"""What is on its way to the bucket: large frames alone, small ones and tombstones in packs.

Not a queue in RAM: what is staged lies in `State`, durable, readable, with its final place.
One pack is open for additions; a sealed one is uploaded, and only then leaves the stage.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import msgspec

from memories.backends.bucket.ledger import Ledger
from memories.backends.bucket.objectstore import Buffer, ObjectStore
from memories.backends.bucket.pack import Contents, Index, Stored, finish, padding
from memories.backends.bucket.place import Place, new_token, object_name
from memories.backends.bucket.state import State
from memories.entry import Record

_PAD = bytes(64)


class Shipper:
    """Stages, packs and uploads. Every method may be called from any thread."""

    def __init__(
        self,
        store: ObjectStore,
        state: State,
        ledger: Ledger,
        *,
        pack_bytes: int,
        wall: Callable[[], float],
    ) -> None:
        self._store = store
        self._state = state
        self._ledger = ledger
        self._pack_bytes = pack_bytes
        self._wall = wall
        self._uploading = threading.Lock()

    def upload(self, record: Record, frame: Sequence[Buffer], length: int) -> Record:
        """Put a large frame as an object of its own and note it."""
        place = Place(new_token(), 0, length)
        with self._state.transaction() as state:
            sequence = self._next_sequence()
            state.run(
                "INSERT INTO object VALUES (?, ?, 0, 0, 'intended', NULL, NULL)",
                place.token, sequence,
            )  # fmt: skip
        contents = Contents([Stored(0, length, _bare(record, length))], [], 0)
        gap = padding(length)
        end = finish(self._index(sequence, contents), length + gap)
        self._store.put(place.name, [*frame, _PAD[:gap], end])
        kept = msgspec.structs.replace(record, place=place.encode(), stored=length)
        with self._state.transaction():
            self._arrived(place.token, length + gap + len(end))
            self._ledger.add(kept, place, self._wall())
        return kept

    def stage(self, record: Record, frame: Sequence[Buffer], length: int) -> Record:
        """Keep a small frame in the open pack."""
        with self._state.transaction() as state:
            token, offset = self._open_pack()
            place = Place(token, offset, length)
            state.run("INSERT INTO staged VALUES (?, ?, ?)", token, offset, b"".join(frame))
            taken = length + padding(length)
            state.run("UPDATE object SET size = size + ? WHERE token = ?", taken, token)
            state.add("physical", taken)
            kept = msgspec.structs.replace(record, place=place.encode(), stored=length)
            self._ledger.add(kept, place, self._wall())
            if offset + taken >= self._pack_bytes:
                self._seal()
        return kept

    def bury(self, key: str, version: int) -> bool:
        """Keep a tombstone in the open pack; return whether one was needed."""
        with self._state.transaction():
            return self._ledger.remove(key, version, self._open_pack()[0], self._wall())

    def staged(self, place: Place) -> memoryview | None:
        """Return a frame that is still staged, or None."""
        found = self._state.row(
            "SELECT frame FROM staged WHERE token = ? AND offset = ?", place.token, place.offset
        )
        return None if found is None else memoryview(found[0])

    def flush(self) -> None:
        """Upload everything that is staged."""
        with self._uploading:
            self._seal()
            self._upload_sealed()

    def flush_full(self) -> None:
        """Upload the packs that are full."""
        if self._state.row("SELECT 1 FROM object WHERE status = 'sealed'") is not None:
            with self._uploading:
                self._upload_sealed()

    def flush_through(self, token: bytes) -> None:
        """Return once the pack `token` is uploaded; who waits meanwhile travels in the next one."""
        with self._uploading:
            status = self._state.row("SELECT status FROM object WHERE token = ?", token)
            if status is not None and status[0] in ("open", "sealed"):
                self._seal()
                self._upload_sealed()

    def recover(self) -> None:
        """Delete what an earlier process began to upload and never noted."""
        for (token,) in self._state.rows("SELECT token FROM object WHERE status = 'intended'"):
            self._store.delete(object_name(token))
            self._state.run("DELETE FROM object WHERE token = ?", token)

    def _open_pack(self) -> tuple[bytes, int]:
        found = self._state.row("SELECT token, size FROM object WHERE status = 'open'")
        if found is not None:
            return found[0], found[1]
        token = new_token()
        self._state.run(
            "INSERT INTO object VALUES (?, ?, 0, 0, 'open', NULL, NULL)",
            token, self._next_sequence(),
        )  # fmt: skip
        return token, 0

    def _seal(self) -> None:
        self._state.run("UPDATE object SET status = 'sealed' WHERE status = 'open'")

    def _upload_sealed(self) -> None:
        for token, sequence, size in self._state.rows(
            "SELECT token, sequence, size FROM object WHERE status = 'sealed' ORDER BY sequence"
        ):
            contents = self._ledger.contents(token)
            if contents.stored or contents.removed:
                self._upload_pack(token, sequence, size, contents)
            else:
                self._drop_pack(token, size)

    def _upload_pack(self, token: bytes, sequence: int, size: int, contents: Contents) -> None:
        body: list[Buffer] = []
        for (frame,) in self._state.rows(
            "SELECT frame FROM staged WHERE token = ? ORDER BY offset", token
        ):
            body += [frame, _PAD[: padding(len(frame))]]
        end = finish(self._index(sequence, contents), size)
        self._store.put(object_name(token), [*body, end])
        with self._state.transaction() as state:
            state.add("physical", -size)
            self._arrived(token, size + len(end))
            state.run("DELETE FROM staged WHERE token = ?", token)

    def _drop_pack(self, token: bytes, size: int) -> None:
        with self._state.transaction() as state:
            for table in ("object", "staged", "entry"):
                state.run(f"DELETE FROM {table} WHERE token = ?", token)
            state.add("physical", -size)

    def _arrived(self, token: bytes, size: int) -> None:
        self._state.run("UPDATE object SET status = 'there', size = ? WHERE token = ?", size, token)
        self._state.add("physical", size)

    def _index(self, sequence: int, contents: Contents) -> Index:
        store, epoch = self._state.get("store", ""), self._state.get("epoch", 0)
        return Index(store, epoch, sequence, self._wall(), contents)

    def _next_sequence(self) -> int:
        self._state.add("sequence", 1)
        return int(self._state.get("sequence", 0))


def _bare(record: Record, length: int) -> Record:
    return msgspec.structs.replace(record, place=b"", stored=length)
