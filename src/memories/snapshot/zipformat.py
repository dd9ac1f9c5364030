"""The ZIP records of a snapshot: one canonical byte sequence for each member, without options.

A snapshot's records can be computed from its members, so they are verified by computing them again
and comparing: every byte that differs is damage.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from memories.errors import CorruptDataError

ALIGNMENT = 64
MAX_HEAD_BYTES = 61_440
MAX_NAME_BYTES = 255

# Signature, versions, UTF-8 flag, stored, the DOS epoch, CRC-32, and the lengths.
_LOCAL = struct.Struct("<IHHHHHIIIHH")
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
_ZIP64_LOCAL = struct.Struct("<HHQQ")
_ZIP64_CENTRAL = struct.Struct("<HHQQQ")
_FIELD = struct.Struct("<HH")
_HEAD_FIELD = struct.Struct("<HHI")
_END64 = struct.Struct("<IQHHIIQQQQ")
_LOCATOR = struct.Struct("<IIQI")
_END = struct.Struct("<IHHHHIIH")

CENTRAL_BYTES = _CENTRAL.size + _ZIP64_CENTRAL.size + _HEAD_FIELD.size  # Without the name.
MAX_CENTRAL_BYTES = CENTRAL_BYTES + MAX_NAME_BYTES
TAIL_BYTES = _END64.size + _LOCATOR.size + _END.size

_HEAD_ID = 0x4D4D  # "MM": our extra field, which other tools skip.
_ZIP64_ID = 0x0001
_NEEDED, _MADE_BY = 45, 3 << 8 | 45
_UTF8 = 1 << 11
_DATE = 0x0021  # 1980-01-01: a snapshot of the same values has the same bytes.
_MODE = 0o100644 << 16
_ABSENT16, _ABSENT32 = 0xFFFF, 0xFFFFFFFF


class Member(NamedTuple):
    """One ZIP member: where its local header starts, and what it holds."""

    name: bytes
    start: int
    head_bytes: int
    body_bytes: int
    crc: int

    @property
    def head_at(self) -> int:
        """Return the offset of the head: the first aligned one behind the fixed fields."""
        fixed = self.start + _LOCAL.size + len(self.name) + _ZIP64_LOCAL.size + _FIELD.size
        return -(-fixed // ALIGNMENT) * ALIGNMENT

    @property
    def body_at(self) -> int:
        """Return the offset of the member's data."""
        return self.head_at + self.head_bytes

    @property
    def end(self) -> int:
        """Return the offset behind the member's data."""
        return self.body_at + self.body_bytes


def local_header(member: Member) -> bytes:
    """Return the bytes from the member's start to its head."""
    field_at = member.start + _LOCAL.size + len(member.name) + _ZIP64_LOCAL.size
    field_bytes = member.body_at - field_at
    fixed = _LOCAL.pack(
        0x04034B50, _NEEDED, _UTF8, 0, 0, _DATE, member.crc, _ABSENT32, _ABSENT32,
        len(member.name), _ZIP64_LOCAL.size + field_bytes,
    )  # fmt: skip
    zip64 = _ZIP64_LOCAL.pack(_ZIP64_ID, 16, member.body_bytes, member.body_bytes)
    field = _FIELD.pack(_HEAD_ID, field_bytes - _FIELD.size)
    padding = bytes(member.head_at - field_at - _FIELD.size)
    return b"".join((fixed, member.name, zip64, field, padding))


def central_entry(member: Member) -> bytes:
    """Return the member's entry in the central directory."""
    fixed = _CENTRAL.pack(
        0x02014B50, _MADE_BY, _NEEDED, _UTF8, 0, 0, _DATE, member.crc,
        _ABSENT32, _ABSENT32, len(member.name), _ZIP64_CENTRAL.size + _HEAD_FIELD.size,
        0, 0, 0, _MODE, _ABSENT32,
    )  # fmt: skip
    sizes = (member.body_bytes, member.body_bytes, member.start)
    zip64 = _ZIP64_CENTRAL.pack(_ZIP64_ID, 24, *sizes)
    return b"".join((fixed, member.name, zip64, _HEAD_FIELD.pack(_HEAD_ID, 4, member.head_bytes)))


def parse_central(data: bytes, at: int) -> tuple[Member, int]:
    """Return the member whose entry starts at `at`, and the offset behind the entry.

    Raises:
        CorruptDataError: the entry is not what `central_entry` gives for any member.
    """
    if at + CENTRAL_BYTES > len(data):
        raise CorruptDataError("the central directory of the snapshot ends inside an entry")
    name_bytes = _CENTRAL.unpack_from(data, at)[10]
    extra_at = at + _CENTRAL.size + name_bytes
    end = at + CENTRAL_BYTES + name_bytes
    if end > len(data) or not 0 < name_bytes <= MAX_NAME_BYTES:
        raise CorruptDataError("the central directory of the snapshot has a bad name length")
    _, _, size, _, start = _ZIP64_CENTRAL.unpack_from(data, extra_at)
    head_bytes = _HEAD_FIELD.unpack_from(data, extra_at + _ZIP64_CENTRAL.size)[2]
    name = data[at + _CENTRAL.size : extra_at]
    member = Member(name, start, head_bytes, size, _CENTRAL.unpack_from(data, at)[7])
    if central_entry(member) != data[at:end]:
        raise CorruptDataError(f"the snapshot's directory entry of {name!r} is damaged")
    if head_bytes > MAX_HEAD_BYTES:
        raise CorruptDataError(f"the snapshot member {name!r} declares a head of {head_bytes} B")
    return member, end


def tail(members: int, directory_at: int, directory_bytes: int) -> bytes:
    """Return the end of the file: the ZIP64 end record, its locator, and the classic end record."""
    end64 = _END64.pack(
        0x06064B50, _END64.size - 12, _MADE_BY, _NEEDED, 0, 0, members, members,
        directory_bytes, directory_at,
    )  # fmt: skip
    locator = _LOCATOR.pack(0x07064B50, 0, directory_at + directory_bytes, 1)
    end = _END.pack(0x06054B50, 0, 0, _ABSENT16, _ABSENT16, _ABSENT32, _ABSENT32, 0)
    return end64 + locator + end


def parse_tail(data: bytes, file_bytes: int) -> tuple[int, int]:
    """Return the number of members and the offset of the central directory.

    `data` are the file's last `TAIL_BYTES`.

    Raises:
        CorruptDataError: these are not the last bytes of a whole snapshot.
    """
    if len(data) == TAIL_BYTES:
        *_, members, directory_bytes, directory_at = _END64.unpack_from(data)
        fits = directory_at + directory_bytes + TAIL_BYTES == file_bytes
        if fits and data == tail(members, directory_at, directory_bytes):
            return members, directory_at
    raise CorruptDataError("it is not a snapshot, or is truncated")
