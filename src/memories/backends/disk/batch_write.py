"""Writes and removes many values with few appends to the log, in their order.

Each record is whole or torn for itself: where the disk refuses a batch in the middle, or the
process is killed there, the first values of the batch are stored and the others are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from memories.backends.disk.appender import Frame
from memories.backends.disk.backpressure import HEAD_BYTES, admit, admit_head, admit_value
from memories.backends.disk.writer import Writer
from memories.errors import StorageError, TierFullError
from memories.model.record import Record

BATCH_KEYS = 1000  # Other threads may commit between two appends.
BATCH_BYTES = 1 << 20
_TOMBSTONE_BYTES = 256  # More than a tombstone takes besides its key.


def write_together(writer: Writer, items: Sequence[tuple[Record, Frame]]) -> list[Record]:
    """Return the records of `items`, or of the first of them; see `DiskBackend.write_many`."""
    done = list[Record]()
    keys = [record.key for record, _ in items]
    sizes = [sum([buffer.nbytes for buffer in frame]) for _, frame in items]
    most = min(writer.space.limits.large, BATCH_BYTES)
    try:
        for batch in _batches(keys, sizes, most):
            stored = _write_batch(writer, items[batch])
            done += stored
            if len(stored) < batch.stop - batch.start:
                break
    except (StorageError, TierFullError):
        if not done:
            raise
    return done


def remove_together(writer: Writer, items: Sequence[tuple[str, int]]) -> int:
    """Return how many of the first `items` are removed; see `DiskBackend.remove_many`."""
    done = 0
    sizes = [_TOMBSTONE_BYTES + 4 * len(key) for key, _ in items]
    try:
        for batch in _batches([key for key, _ in items], sizes, BATCH_BYTES):
            while done < batch.stop:
                # Once more for the others where the disk is full: then the reserve is used.
                rest = items[done : batch.stop]
                done += _remove_batch(writer, rest, sum(sizes[done : batch.stop]))
    except StorageError:
        if not done:
            raise
    return done


def _write_batch(writer: Writer, items: Sequence[tuple[Record, Frame]]) -> list[Record]:
    if len(items) == 1:
        return [admit_value(writer, *items[0])]
    try:
        return admit(
            writer,
            f"store {len(items)} values",
            lambda writer, granted: writer.write_batch(items, granted),
        )
    except TierFullError:
        pass  # There may be room for some of them.
    done = list[Record]()
    try:
        for record, frame in items:
            done.append(admit_value(writer, record, frame))
    except (StorageError, TierFullError):
        if not done:
            raise
    return done


def _remove_batch(writer: Writer, items: Sequence[tuple[str, int]], size: int) -> int:
    return admit_head(
        writer,
        f"remove {len(items)} keys",
        lambda writer: writer.on_full_disk(lambda: writer.remove_batch(items)),
        max(size, HEAD_BYTES),
    )


def _batches(keys: Sequence[str], sizes: Sequence[int], most: int) -> Iterator[slice]:
    """Yield the slices of batches: different keys, few enough, and of `most` bytes together.

    What is larger comes alone.
    """
    if len(keys) <= BATCH_KEYS and sum(sizes) <= most and len(set(keys)) == len(keys):
        if keys:
            yield slice(0, len(keys))
        return
    start, taken, held = 0, set[str](), 0
    for at, (key, size) in enumerate(zip(keys, sizes, strict=True)):
        if at > start and (key in taken or held + size > most or at - start == BATCH_KEYS):
            yield slice(start, at)
            start, taken, held = at, set(), 0
        taken.add(key)
        held += size
    yield slice(start, len(keys))
