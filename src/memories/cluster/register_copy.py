"""The copy of a register on one node, as the node's reply shows it."""

from __future__ import annotations

from typing import Any, NamedTuple

from memories.cluster.manifest import ChunkUpload, upload_of_register
from memories.cluster.register_format import (
    HEADER_BYTES,
    PEEK_BYTES,
    RegisterHeader,
    RegisterKind,
    key_text,
    read_header,
    read_register,
)
from memories.cluster.value_terms import read_expiry
from memories.cluster.versions import ABSENT, RegisterVersion
from memories.errors import CorruptDataError


class RegisterCopy(NamedTuple):
    """One node's copy: its header and, where it was fetched as a whole, its bytes."""

    header: RegisterHeader | None  # None if the node has no such register.
    data: bytes | None  # All bytes, or None where only the beginning was requested.
    upload: ChunkUpload | None
    expires_ms: int = 0  # Since the epoch; 0 for never.

    @property
    def version(self) -> RegisterVersion:
        """Return the version of the copy; `ABSENT` if the node has none."""
        return ABSENT if self.header is None else self.header.version


def read_copy(name: bytes, reply: Any, *, whole: bool) -> RegisterCopy:
    """Return the copy in a node's reply, which has all of the register if it is `whole`.

    Raises:
        CorruptDataError: the copy is damaged.
    """
    if reply is None or reply == b"":
        return RegisterCopy(None, None, None)
    if not isinstance(reply, bytes):
        raise CorruptDataError(f"the register of {key_text(name)} on a node is not text")
    header = RegisterHeader(*read_register(name, reply)[:2]) if whole else read_header(name, reply)
    upload = upload_of_register(header.kind, reply[HEADER_BYTES:PEEK_BYTES])
    expires_ms = read_expiry(reply[HEADER_BYTES:PEEK_BYTES]) if header.kind.has_terms else 0
    complete = whole or header.kind is RegisterKind.TOMBSTONE
    return RegisterCopy(header, reply if complete else None, upload, expires_ms)
