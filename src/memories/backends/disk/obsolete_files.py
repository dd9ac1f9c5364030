"""Files that nothing refers to any more: when they are unlinked, and how long they take room.

A file is added after a sync of what replaced it. While a view is open nothing is unlinked, and the
bytes of a mapped file are free only when its last mapping ends.
"""

from __future__ import annotations

import weakref
from collections import deque
from pathlib import Path

from memories.backends.disk.files import Files
from memories.backends.disk.paths import StorePaths
from memories.backends.disk.reader import FrameReader
from memories.foundation.fork_lock import new_lock
from memories.foundation.periodic import AutoResetEvent


class ObsoleteFiles:
    """The obsolete files of one store. The writer's lock guards all but `unlink` and `held`.

    Every step may be done twice: after an interrupt the same file is added or unlinked again.
    """

    def __init__(self, paths: StorePaths, files: Files, reader: FrameReader) -> None:
        self._paths, self._files = paths, files
        self._reader = reader
        self._files_left: dict[Path, int] = {}  # What is to be unlinked, and its bytes.
        self._segments: dict[Path, int] = {}
        self._sizes: dict[Path, int] = {}  # What takes room: also unlinked files that are mapped.
        self._held: int | None = 0  # Their sum; None when it must be added up again.
        self._counting = new_lock()
        self.unlink_lock = new_lock()  # One thread unlinks; the others wait for it.
        self.added = AutoResetEvent()  # There may be something to unlink.
        # A deque, because a mapping may end in any thread, under any lock, and in a forked child.
        self._freed: deque[Path] = deque()
        self.values: dict[int, int] = {}  # Value files among them: number to bytes.
        self.packs: set[int] = set()
        self.pins: set[weakref.ref[object]] = set()  # Open views: nothing is unlinked.

    def add_value(self, number: int, size: int) -> None:
        """Add a value file."""
        self.values[number] = size
        self._add(self._paths.value(number), size)

    def add_segment(self, number: int, size: int) -> None:
        """Add a segment."""
        path = self._paths.segment(number)
        self._segments[path] = number
        self._add(path, size)

    def add_pack(self, number: int, size: int) -> None:
        """Add a pack."""
        self.packs.add(number)
        self._add(self._paths.pack(number), size)

    def numbers(self) -> tuple[set[int], set[int], set[int]]:
        """Return the numbers of the segments, the packs and the value files among them."""
        return set(self._segments.copy().values()), self.packs.copy(), set(self.values.copy())

    def pin(self, view: object) -> None:
        """Keep every file until `unpin`, or until `view` dies."""
        self.pins.add(weakref.ref(view, self.pins.discard))

    def unpin(self, view: object) -> None:
        """Allow what only `view` kept to be unlinked."""
        self.pins.discard(weakref.ref(view))

    def _add(self, path: Path, size: int) -> None:
        with self._counting:
            self._held = None
            self._sizes[path] = size
        self._files_left[path] = size
        self.added.set()

    def held(self) -> int:
        """Return the bytes that obsolete files still take; any thread may ask."""
        held = self._held
        if held is not None and not self._freed:
            return held
        with self._counting:
            if self._freed:
                self._held = None
                while self._freed:
                    self._sizes.pop(self._freed.popleft(), None)
            if self._held is None:
                self._held = sum(self._sizes.values())
            return self._held

    def unpinned(self) -> list[Path]:
        """Return the files that may be unlinked now."""
        return [] if self.pins else list(self._files_left)

    def unlink(self, path: Path) -> None:
        """Unlink one file; its bytes are free now, or when its last mapping ends."""
        mapped = self._reader.mapped(path)
        self._files.unlink(path)
        if path in self._segments:
            self._reader.handles.remove(self._segments[path])
            self._segments.pop(path, None)
        elif path.suffix == ".val":
            self.values.pop(int(path.stem), None)
        elif path.suffix == ".pack":
            self.packs.discard(int(path.stem))
        if mapped is None:
            self._freed.append(path)
        else:
            weakref.finalize(mapped, self._freed.append, path)
        self._files_left.pop(path, None)
