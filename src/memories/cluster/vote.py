"""What one node says of one register."""

from __future__ import annotations

from typing import NamedTuple

from memories.cluster.manifest import Upload, read_upload
from memories.cluster.register_format import HEADER_BYTES, Header, Kind, read_body, read_header
from memories.cluster.versions import ABSENT, Version


class Vote(NamedTuple):
    """What one node says: a header and, where it was fetched, all of the register."""

    header: Header | None
    data: bytes | None  # All of it, or None where only its beginning was asked for.
    upload: Upload | None

    @property
    def version(self) -> Version:
        """Return the version it names."""
        return ABSENT if self.header is None else self.header.version


def read_vote(name: bytes, reply: bytes | None, *, whole: bool) -> Vote:
    """Return the vote in a node's reply.

    Raises:
        CorruptDataError: what it holds is damaged.
    """
    if not reply:
        return Vote(None, None, None)
    header = read_header(name, reply)
    if whole:
        read_body(name, header, reply)
    upload = read_upload(reply[HEADER_BYTES:]) if header.kind is Kind.MANIFEST else None
    complete = whole or header.kind is Kind.TOMBSTONE
    return Vote(header, reply if complete else None, upload)
