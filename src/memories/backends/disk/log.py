"""The log: segments that are only appended to, and how far they are synced.

The log deals in bytes and positions; keys and live records are the index's. A failed append ends
the segment: the header of the next one records how many bytes of this one are valid.
"""

from __future__ import annotations

from collections.abc import Sequence

from memories.backends.disk.fd_cache import Handle, HandleCache
from memories.backends.disk.files import Files, append
from memories.backends.disk.lock import WriterLock
from memories.backends.disk.log_format import (
    SEGMENT_HEADER_BYTES,
    Position,
    RecordHead,
    pack_segment_header,
)
from memories.backends.disk.paths import StorePaths, write_whole
from memories.backends.disk.replay import SegmentWalk
from memories.foundation.fork_lock import new_lock

_new = tuple.__new__  # What `Position(...)` does, without its argument parsing.


class Log:
    """Appends records; one caller at a time appends, any thread may sync."""

    def __init__(
        self,
        paths: StorePaths,
        files: Files,
        handles: HandleCache,
        end: Position,
        *,
        segment_bytes: int,
        writer_lock: WriterLock,
    ) -> None:
        self._paths, self._writer_lock = paths, writer_lock
        self._segment_bytes = segment_bytes
        self._files = files
        self._handles = handles
        self._active: Handle | None = None
        self._unsynced: list[tuple[int, Handle]] = []
        self._new_names = False
        self._syncing = new_lock()
        self.end = end  # Everything before it counts.
        self.synced = end
        self.highest = end.segment  # The highest segment number ever used.
        self.suspect = False  # A sync failed: the kernel may have dropped what was not synced.

    def resume(self, number: int) -> None:
        """Continue the last segment, which ends at a whole, synced record."""
        path = self._paths.segment(number)
        self._active = Handle(self._files, self._files.reopen(path))
        self._handles.insert(number, self._active)

    def append(self, parts: Sequence[bytes | memoryview], length: int) -> Position:
        """Write one record of `length` bytes and return where it starts."""
        if self._active is None or self.end.offset >= self._segment_bytes:
            self._start_segment()
        assert self._active is not None
        if not self._unsynced or self._unsynced[-1][1] is not self._active:
            self._unsynced.append((self.end.segment, self._active))
        start = self.end
        try:
            if len(parts) == 1:
                data = parts[0]
                written = self._files.write(self._active.descriptor, data)
                if written < length:
                    append(self._files, self._active.descriptor, [memoryview(data)[written:]])
            else:
                append(self._files, self._active.descriptor, parts)
        except OSError:
            self._active = None
            raise
        self.end = _new(Position, (start.segment, start.offset + length))
        return start

    def go_back(self, end: Position, highest: int) -> list[tuple[int, int, RecordHead]]:
        """Return what was wholly appended since the log ended at `end`, and make it end there.

        For an append that was interrupted at an unknown line. `highest` was the highest segment
        number before it. Torn bytes stay behind, as after a failed append.
        """
        number, start = end
        if self.end.segment > end.segment:
            number, start = self.end.segment, SEGMENT_HEADER_BYTES
        found: list[tuple[int, int, RecordHead]] = []
        if self._paths.segment(number).exists():
            handle = self._handles.get(number)
            walk = SegmentWalk(self._files, handle, start, self._files.size(handle.descriptor))
            found = [(number, offset, head) for offset, head in walk]
            if walk.at < walk.end:
                self._active = None
            start = walk.at
        if number > highest and not found:
            (number, start), self._active = end, None
        for begun in range(highest + 1, self.highest + 1):
            if begun != number:
                self._handles.remove(begun)
                self._discard(begun)
        self.end = Position(number, start)
        return found

    def cut(self) -> None:
        """End the segment: the next record begins a new one."""
        self._active = None

    def close(self) -> None:
        """Close every segment."""
        self._active, self._unsynced = None, []

    def _start_segment(self) -> None:
        self._writer_lock.require()
        # Reserved first: whatever happens now, no other file is ever made under this number.
        number = self.highest = self.highest + 1
        self._active = None
        path = self._paths.segment(number)
        handle = Handle(self._files, self._files.create(path))
        try:
            append(self._files, handle.descriptor, [pack_segment_header(number, self.end)])
        except BaseException:
            self._discard(number)  # Without a header it would count as damaged.
            raise
        self._unsynced.append((number, handle))
        self._new_names = True
        self.end = Position(number, SEGMENT_HEADER_BYTES)
        self._active = self._handles.insert(number, handle)

    def _discard(self, number: int) -> None:
        self._writer_lock.directory.discard(self._files, self._paths.segment(number))

    def sync(self, end: Position | None = None) -> None:
        """Return once everything before the present end survives a power cut.

        With `end`, `synced` moves only to there: the values that later records name are not synced.

        Threads that wait here share one sync. After a failure `suspect` is set, and what was not
        synced must be written again elsewhere (`replace_unsynced`): the kernel reports it once.
        """
        wanted = end or self.end
        with self._syncing:
            if self.synced < wanted:
                self._sync(end or self.end, list(self._unsynced))

    def _sync(self, end: Position, batch: list[tuple[int, Handle]]) -> None:
        try:
            for _, handle in batch:
                self._files.sync(handle.descriptor)
            if self._new_names:
                # Before the call: a name may be added while it runs.
                self._new_names = False
                self._files.sync_directory(self._paths.log)
        except BaseException as error:
            self._new_names = True
            self.suspect |= isinstance(error, OSError)
            raise
        self.synced = end
        # The last one may have grown since the end was read: it stays. New ones may be added.
        for item in batch[:-1]:
            self._unsynced.remove(item)

    @property
    def next_segment(self) -> Position:
        """Return where the first record of the next segment will lie."""
        return Position(self.highest + 1, SEGMENT_HEADER_BYTES)

    def replace_unsynced(self, records: Sequence[bytes]) -> list[Position]:
        """Put `records` in a new segment that follows the synced part of the log.

        The segment appears complete and synced, or not at all.
        """
        self._writer_lock.require()
        number = self.highest + 1
        self.highest = number
        data = pack_segment_header(number, self.synced) + b"".join(records)
        path = self._paths.segment(number)
        write_whole(self._files, path, data)
        self.suspect = False
        self._active, self._unsynced, self._new_names = None, [], False
        positions, offset = [], SEGMENT_HEADER_BYTES
        for record in records:
            positions.append(Position(number, offset))
            offset += len(record)
        # The records are synced, but the values that they name may not be.
        self.end, self.synced = Position(number, offset), Position(number, SEGMENT_HEADER_BYTES)
        return positions
