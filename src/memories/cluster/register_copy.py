"""What one node says of one register."""

from __future__ import annotations

from typing import NamedTuple

from memories.cluster.manifest import ChunkUpload, read_upload
from memories.cluster.register_format import (
    HEADER_BYTES,
    RegisterHeader,
    RegisterKind,
    read_body,
    read_header,
)
from memories.cluster.versions import ABSENT, RegisterVersion


class RegisterCopy(NamedTuple):
    """What one node says: a header and, where it was fetched, all of the register."""

    header: RegisterHeader | None
    data: bytes | None  # All of it, or None where only its beginning was asked for.
    upload: ChunkUpload | None

    @property
    def version(self) -> RegisterVersion:
        """Return the version it names."""
        return ABSENT if self.header is None else self.header.version


def read_copy(name: bytes, reply: bytes | None, *, whole: bool) -> RegisterCopy:
    """Return the vote in a node's reply.

    Raises:
        CorruptDataError: what it holds is damaged.
    """
    if not reply:
        return RegisterCopy(None, None, None)
    header = read_header(name, reply)
    if whole:
        read_body(name, header, reply)
    upload = read_upload(reply[HEADER_BYTES:]) if header.kind is RegisterKind.MANIFEST else None
    complete = whole or header.kind is RegisterKind.TOMBSTONE
    return RegisterCopy(header, reply if complete else None, upload)
