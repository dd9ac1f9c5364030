"""Checks that the parts of a snapshot fit together: members end to end, frames in their members.

Only the central directory and the manifest are read, so the cost depends on the number of keys. No
number that was read is trusted.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from memories.errors import CorruptDataError, InvalidKeyError
from memories.foundation.keys import MAX_KEY_BYTES, check_key
from memories.model.tiers import TierName
from memories.snapshot.manifest import Linked, Packed, Reference, Root, SnapshotRow, Whole
from memories.snapshot.member_names import MANIFEST, RESERVED, member_name, packed_name
from memories.snapshot.pread_file import PreadFile
from memories.snapshot.zipformat import ALIGNMENT, MAX_CENTRAL_BYTES, Member, parse_central

_WINDOW_BYTES = 1 << 20

U64 = npt.NDArray[np.uint64]


class CentralDirectory:
    """The members of a snapshot, in 25 bytes each; the central directory itself stays on disk.

    Raises:
        CorruptDataError: the directory is not that of a whole snapshot.
    """

    def __init__(self, file: PreadFile, members: int, at: int, end: int) -> None:
        self._file = file
        self._end = end
        self._entries = array("Q")
        self._heads = array("Q")
        self._ends = array("Q")
        self._is_pack = array("B")
        self.packs = 0
        for member in self._walk(members, at):
            self._heads.append(member.head_at)
            self._ends.append(member.end)
        if not members or member.name != MANIFEST.encode() or member.end != at:
            raise CorruptDataError("it has no manifest where a snapshot has it")
        self.manifest = member
        self.heads: U64 = np.frombuffer(self._heads, np.uint64)
        self.ends: U64 = np.frombuffer(self._ends, np.uint64)
        self.is_pack = np.frombuffer(self._is_pack, np.bool_)

    def _walk(self, members: int, at: int) -> Iterator[Member]:
        window, window_at, expected, values_end = b"", at, 0, at
        for _ in range(members):
            if at - window_at + MAX_CENTRAL_BYTES > len(window):
                window, window_at = self._window(at, _WINDOW_BYTES), at
            member, next_in_window = parse_central(window, at - window_at)
            if member.start != expected or member.end > values_end:
                raise CorruptDataError(f"the member {member.name!r} is in a wrong place")
            self._entries.append(at)
            self._is_pack.append(_is_next_pack(member, self.packs))
            self.packs += self._is_pack[-1]
            at, expected = window_at + next_in_window, member.end
            yield member
        if at != self._end:
            raise CorruptDataError("its central directory is longer than its members need")

    def _window(self, at: int, most: int) -> bytes:
        return self._file.read(at, min(most, self._end - at))

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Member:
        return parse_central(self._window(self._entries[index], MAX_CENTRAL_BYTES), 0)[0]


def _is_next_pack(member: Member, packs: int) -> bool:
    if not member.name.startswith(RESERVED.encode()) or member.name == MANIFEST.encode():
        return False
    if member.name != packed_name(packs).encode() or member.head_bytes:
        raise CorruptDataError(f"the member {member.name!r} is unknown in snapshots")
    return True


class Extents(NamedTuple):
    """Where the frames of a file lie, in the order of the file."""

    offsets: U64
    ends: U64

    def contain(self, wheres: Sequence[Whole | Packed | Linked]) -> bool:
        """Return whether each of `wheres` is exactly one of these."""
        offsets, ends = _extents(wheres)
        if not len(self.offsets):
            return not len(offsets)
        found = np.minimum(np.searchsorted(self.offsets, offsets), len(self.offsets) - 1)
        return bool(((self.offsets[found] == offsets) & (self.ends[found] == ends)).all())


class RowCheck:
    """Checks every row of a manifest against the directory, in 16 bytes per key.

    Feed it each page by `add`, then call `finish`, which sets `extents`.
    """

    extents: Extents

    def __init__(self, root: Root, directory: CentralDirectory) -> None:
        self._root = root
        self._directory = directory
        self._last_key = ""
        self._keys = 0
        self._offsets: list[U64] = [np.zeros(0, np.uint64)]
        self._ends: list[U64] = [np.zeros(0, np.uint64)]
        self._whole = 0
        self.tiers: Counter[TierName] = Counter()  # How many rows each of them had.
        self.references = 0
        self.digests: U64 = np.zeros(len(directory), np.uint64)  # Of each member's head.

    def add(self, rows: list[SnapshotRow]) -> None:
        """Check one page, and remember the extents in it."""
        self._check_keys([row.key for row in rows])
        self._check_versions(rows)
        self._keys += len(rows)
        self.tiers.update([row.tier for row in rows])
        packed = [where for row in rows if isinstance(where := row.where, Packed)]
        self._check_packed(packed)
        if len(packed) < len(rows):
            self._check_whole([row for row in rows if isinstance(row.where, Whole)])
            self._check_linked([row for row in rows if isinstance(row.where, Linked)])
            self.references += sum(isinstance(row.where, Reference) for row in rows)

    def _check_keys(self, keys: list[str]) -> None:
        """Check that keys are valid and ascend; all at once, as almost always all are sound."""
        for key, last in zip(keys, [self._last_key, *keys], strict=False):
            if key <= last:
                raise CorruptDataError(f"its manifest contains {key!r} twice, or out of order")
        self._last_key = keys[-1] if keys else self._last_key
        text = "".join(keys)
        longest = max(map(len, keys), default=0)
        if "\0" in text or not text.isascii() or longest > MAX_KEY_BYTES:
            for key in keys:
                _check_stored_key(key)

    def _check_versions(self, rows: list[SnapshotRow]) -> None:
        versions = [row.version for row in rows]
        if rows and not 0 < min(versions) <= max(versions) <= self._root.sequence:
            row = next(row for row in rows if not 0 < row.version <= self._root.sequence)
            raise CorruptDataError(
                f"{row.key!r} has version {row.version} in a snapshot of version "
                f"{self._root.sequence}"
            )

    def _check_linked(self, rows: list[SnapshotRow]) -> None:
        for row in rows:
            if isinstance(row.where, Linked) and row.where.base >= len(self._root.bases):
                raise CorruptDataError(f"{row.key!r} is in a base that the snapshot does not name")

    def _check_whole(self, rows: list[SnapshotRow]) -> None:
        wheres = [row.where for row in rows if isinstance(row.where, Whole)]
        offsets, ends = _extents(wheres)
        found = self._find(offsets)
        exact = (self._directory.heads[found] == offsets) & (self._directory.ends[found] == ends)
        _all(exact)
        for row, index in zip(rows, found.tolist(), strict=True):
            self._check_name(row.key, index)
        self.digests[found] = np.array([where.digest for where in wheres], np.uint64)
        self._remember(offsets, ends)
        self._whole += len(rows)

    def _check_name(self, key: str, index: int) -> None:
        name = self._directory[index].name
        npy = name.endswith(b".npy")
        if name != member_name(key, npy=npy).encode():
            raise CorruptDataError(f"the value of {key!r} has another name, {name!r}")

    def _check_packed(self, wheres: list[Packed]) -> None:
        offsets, ends = _extents(wheres)
        found = self._find(offsets)
        _all((offsets % ALIGNMENT == 0) & (ends <= self._directory.ends[found]))
        _all(self._directory.is_pack[found])
        self._remember(offsets, ends)

    def _find(self, offsets: U64) -> npt.NDArray[np.intp]:
        found = np.searchsorted(self._directory.heads, offsets, side="right")
        _all(found > 0)
        return found - 1

    def _remember(self, offsets: U64, ends: U64) -> None:
        self._offsets.append(offsets)
        self._ends.append(ends)

    def finish(self) -> None:
        """Check what all the rows together must be."""
        offsets, ends = np.concatenate(self._offsets), np.concatenate(self._ends)
        order = np.argsort(offsets)
        self.extents = Extents(offsets[order], ends[order])
        _all(self.extents.ends[:-1] <= self.extents.offsets[1:])
        if self._keys != self._root.keys:
            raise CorruptDataError(f"it declares {self._root.keys} keys and lists {self._keys}")
        if self._whole + self._directory.packs + 1 != len(self._directory):
            raise CorruptDataError("it has members that its manifest does not name")


def _check_stored_key(key: str) -> None:
    try:
        check_key(key)
    except InvalidKeyError as error:
        raise CorruptDataError(f"its manifest contains an invalid key: {error}") from error


def _extents(wheres: Sequence[Whole | Packed | Linked]) -> tuple[U64, U64]:
    offsets = np.array([where.offset for where in wheres], np.uint64)
    return offsets, offsets + np.array([where.length for where in wheres], np.uint64)


def _all(good: npt.NDArray[np.bool_]) -> None:
    if not good.all():
        raise CorruptDataError("its manifest names bytes outside of all values, or of two values")
