"""Writes a run of the index from rows in key order, in one pass and with bounded buffers.

Meanwhile 16 bytes per row stay in RAM: its offset and the hash of its key.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from xxhash import xxh3_64_intdigest

from memories.backends.disk.files import Files, append
from memories.backends.disk.index import Table
from memories.backends.disk.log_format import encode_record
from memories.backends.disk.paths import DRAFT
from memories.backends.disk.run import BLOCK, FIRST_ROW, FOOTER, MAGIC, pack_row
from memories.backends.disk.run_table import OFFSET_BITS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_CHUNK = 64 * BLOCK


def write_run(
    path: Path,
    files: Files,
    number: int,
    rows: Iterable[tuple[bytes, bytes, float | None]],
    pace: Callable[[], None],
    ready: Callable[[], None] = lambda: None,
) -> int:
    """Write `rows` (key, packed row, expiry) and return how many there were; 0 writes no file.

    The file is synced before it gets its name. `pace` is called now and then: it may sleep.
    `ready` raises if the file must not get its name any more.
    """
    draft = path.with_name(path.name + DRAFT)
    files.unlink(draft)
    try:
        out = _Out(files, files.create(draft), number)
        try:
            count = _write(out, number, rows, pace)
            files.sync(out.descriptor)
            ready()
        finally:
            files.close(out.descriptor)
        if count:
            files.rename(draft, path)
        else:
            files.unlink(draft)
    except BaseException:
        files.unlink(draft)  # Whatever line was interrupted; it is gone if it has its name.
        raise
    return count


def _write(
    out: _Out,
    number: int,
    rows: Iterable[tuple[bytes, bytes, float | None]],
    pace: Callable[[], None],
) -> int:
    offsets, hashes, expiring = array("Q"), array("Q"), []
    out.put(MAGIC.ljust(FIRST_ROW, b"\0"))
    position = FIRST_ROW
    for at, (key, row, expires_at) in enumerate(rows):
        offsets.append(position)
        hashes.append(xxh3_64_intdigest(key))
        if expires_at is not None:
            expiring.append((expires_at, position))
        out.put(row)
        position += len(row)
        if not at % 32:
            pace()
    count = len(offsets)
    offsets_at = out.align()
    out.put(offsets.tobytes())
    table_at = out.align()
    table = hash_table(hashes, offsets)
    out.put(table.tobytes())
    expiring.sort()
    expiry_at = out.align()
    out.put(array("d", [at for at, _ in expiring]).tobytes())
    out.put(array("Q", [offset for _, offset in expiring]).tobytes())
    sums_at = out.align()
    footer = FOOTER.pack(
        MAGIC, number, count, len(table), offsets_at, table_at, expiry_at, sums_at, 0
    )
    out.finish(footer[:-8])
    return count


def run_rows(table: Table) -> Iterator[tuple[bytes, bytes, float | None]]:
    """Yield the rows of a table as `write_run` takes them."""
    for key, row in sorted((key.encode(), row) for key, row in table.items()):
        yield key, pack_row(row, encode_record), row.record.terms.expires_at


def merged_rows(
    sources: Iterable[Iterator[tuple[bytes, bytes, float | None]]],
    drops: Callable[[bytes, bytes], bool] | None = None,
) -> Iterator[tuple[bytes, bytes, float | None]]:
    """Yield the newest row of each key of `sources`, which are newest first, in key order.

    What `drops` says yes to, asked with the key and the row, is left out.
    """
    latest = None
    for item in heapq.merge(*sources, key=itemgetter(0)):
        if item[0] == latest:
            continue
        latest = item[0]
        if drops is None or not drops(latest, item[1]):
            yield item


def hash_table(hashes: array[int], offsets: array[int]) -> npt.NDArray[np.uint64]:
    """Return an open-addressed table of words: 20 bits of the hash, 44 bits of the offset."""
    import numpy as np  # Imported here: a reader needs no NumPy.

    slots = 8
    while slots * 2 < len(hashes) * 3:
        slots *= 2
    hashed = np.frombuffer(hashes, np.uint64) if hashes else np.empty(0, np.uint64)
    offset = np.frombuffer(offsets, np.uint64) if offsets else np.empty(0, np.uint64)
    shift = np.uint64(OFFSET_BITS)
    pending = (hashed >> shift) << shift | offset
    wanted = (hashed & np.uint64(slots - 1)).astype(np.int64)
    table = np.zeros(slots, np.uint64)
    while pending.size:
        free = table[wanted] == 0
        table[wanted[free]] = pending[free]
        # Of all that wanted one slot the last got it; the others try the next slot.
        left = table[wanted] != pending
        pending, wanted = pending[left], (wanted[left] + 1) & (slots - 1)
    return table


class _Out:
    """A file written in order, whose blocks are summed on their way."""

    def __init__(self, files: Files, descriptor: int, number: int) -> None:
        self._files = files
        self._blob = None if files.seal is None else files.seal.run_writer(number)
        self.descriptor = descriptor
        self._buffer = bytearray()
        self._length = 0
        self._sums = array("Q")

    def put(self, data: bytes) -> None:
        self._buffer += data
        self._length += len(data)
        if len(self._buffer) >= _CHUNK:
            self._flush(len(self._buffer) // BLOCK * BLOCK)

    def align(self) -> int:
        self.put(bytes(-self._length % 8))
        return self._length

    def finish(self, front: bytes) -> None:
        self._flush(len(self._buffer))
        sums = self._sums.tobytes()
        digest = xxh3_64_intdigest(sums + front).to_bytes(8, "little")
        self._append(sums + front + digest)
        if self._blob is not None:
            append(self._files, self.descriptor, [self._blob.end()])

    def _flush(self, length: int) -> None:
        data = bytes(self._buffer[:length])
        del self._buffer[:length]
        for start in range(0, length, BLOCK):
            self._sums.append(xxh3_64_intdigest(data[start : start + BLOCK], len(self._sums)))
        self._append(data)

    def _append(self, data: bytes) -> None:
        data = data if self._blob is None else self._blob.add(data)
        append(self._files, self.descriptor, [data])
