"""The byte format of a register on a node: a header of 64 bytes, then the body.

The header has a fixed length and a checksum of its own. So a script on the server can compare
versions, and a client can read a version without fetching the value.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple, TypeAlias

import xxhash

from memories.cluster.versions import TEXT_BYTES, RegisterVersion
from memories.errors import CorruptDataError

HEADER_BYTES = 64
PEEK_BYTES = 128  # The header, and the fixed part of a manifest.
PREFIX = b"m:r:"
CHUNK_PREFIX = b"m:c:"

Buffer: TypeAlias = bytes | memoryview
KIND_AT = TEXT_BYTES
_COPIED_BYTES = 4096  # To copy a smaller body costs less than a view of it.
_LEAD_BYTES = KIND_AT + 17  # The version, the kind, and the checksum of the body.
_SUMS = slice(KIND_AT + 1, HEADER_BYTES)  # Of the body, and of the lead and the name.
_SUMS_DIGITS = HEADER_BYTES - KIND_AT - 1
_HEAD_SUM_DIGITS = HEADER_BYTES - _LEAD_BYTES


class RegisterKind(Enum):
    """What the body of a register is."""

    VALUE = b"v"  # A frame follows.
    MANIFEST = b"m"  # A manifest follows; the frame is stored as chunks.
    TOMBSTONE = b"t"  # The key was deleted.
    VALUE_WITH_TERMS = b"w"  # A frame, with `value_terms` around it.
    MANIFEST_WITH_TERMS = b"n"  # A manifest, with `value_terms` around it.

    @property
    def is_manifest(self) -> bool:
        """Return whether the frame is stored as chunks."""
        return self is RegisterKind.MANIFEST or self is RegisterKind.MANIFEST_WITH_TERMS

    @property
    def has_terms(self) -> bool:
        """Return whether there are terms around the content."""
        return self is RegisterKind.VALUE_WITH_TERMS or self is RegisterKind.MANIFEST_WITH_TERMS


class RegisterBody(NamedTuple):
    """The new content of a register."""

    kind: RegisterKind
    segments: Sequence[Buffer] = ()

    @property
    def nbytes(self) -> int:
        """Return how many bytes it has."""
        total = 0
        for one in self.segments:
            total += one.nbytes if type(one) is memoryview else len(one)
        return total


class RegisterHeader(NamedTuple):
    """What the first 64 bytes of a register say."""

    version: RegisterVersion
    kind: RegisterKind


_KINDS = {kind.value: kind for kind in RegisterKind}  # A dict is faster than the enum.
_VALUES = {kind: kind.value for kind in RegisterKind}
MANIFEST_KINDS = frozenset(kind.value for kind in RegisterKind if kind.is_manifest)


def name_prefix(namespace: str = "") -> bytes:
    """Return what the names of all registers of a namespace start with.

    Keys contain no NUL. So a key without a namespace cannot be taken for one in a namespace.
    """
    return PREFIX + (b"\0%b\0" % namespace.encode() if namespace else b"")


def register_name(key: str, namespace: str = "") -> bytes:
    """Return the name of the register of `key` on a node."""
    return name_prefix(namespace) + key.encode()


def key_of(name: bytes) -> str:
    """Return the key whose register has this name, with its namespace and a colon in front."""
    return _key_text(name).decode(errors="replace")  # Anyone can write any name to a node.


def pack_register(
    name: bytes, version: RegisterVersion, kind: RegisterKind, body: Sequence[Buffer] = ()
) -> tuple[memoryview, ...]:
    """Return the bytes of a register as a gather list; the body is not copied."""
    if len(body) == 1:
        body_sum = xxhash.xxh3_64_hexdigest(body[0])
    else:
        digest = xxhash.xxh3_64()
        for segment in body:
            digest.update(segment)
        body_sum = digest.hexdigest()
    lead = version.text + _VALUES[kind] + body_sum.encode()
    return (memoryview(lead + _head_sum(name, lead)), *(memoryview(one) for one in body))


def pack_small(text: bytes, name: bytes, body: RegisterBody) -> bytes:
    """Return all bytes of a small register, whose version has this text; its body is copied."""
    segments = body.segments
    content = segments[0] if len(segments) == 1 else b"".join(segments)
    lead = text + _VALUES[body.kind] + xxhash.xxh3_64_hexdigest(content).encode()
    return b"".join((lead, _head_sum(name, lead), content))


def read_header(name: bytes, data: bytes) -> RegisterHeader:
    """Return the header at the start of `data`.

    Raises:
        CorruptDataError: it is damaged, or belongs to another register.
    """
    lead = data[:_LEAD_BYTES]
    if data[_LEAD_BYTES:HEADER_BYTES] != _head_sum(name, lead):
        raise _damaged(name)
    return RegisterHeader(*_read_lead(name, lead))


def read_register(name: bytes, data: bytes) -> tuple[RegisterVersion, RegisterKind, Buffer]:
    """Return the version, the kind and the body of a register; both checksums are compared.

    Raises:
        CorruptDataError: it is damaged, or belongs to another register.
    """
    small = len(data) < _COPIED_BYTES
    body = data[HEADER_BYTES:] if small else memoryview(data)[HEADER_BYTES:]
    lead = data[:_LEAD_BYTES]
    sums = xxhash.xxh3_64_hexdigest(body) + xxhash.xxh3_64_hexdigest(lead + name)
    if data[_SUMS] != sums[:_SUMS_DIGITS].encode():
        raise _damaged(name)
    return *_read_lead(name, lead), body


def key_text(name: bytes) -> str:
    """Return the key of a register as a message shows it."""
    return repr(_key_text(name).decode(errors="replace")[:200])


def _key_text(name: bytes) -> bytes:
    return name[len(PREFIX) :].removeprefix(b"\0").replace(b"\0", b":", 1)


def _read_lead(name: bytes, lead: bytes) -> tuple[RegisterVersion, RegisterKind]:
    try:
        return RegisterVersion.parse(lead[:KIND_AT]), _KINDS[lead[KIND_AT : KIND_AT + 1]]
    except (ValueError, KeyError):
        raise _damaged(name) from None


def _damaged(name: bytes) -> CorruptDataError:
    return CorruptDataError(f"the register of {key_text(name)} on a node is damaged")


def _head_sum(name: bytes, lead: bytes) -> bytes:
    return xxhash.xxh3_64_hexdigest(lead + name)[:_HEAD_SUM_DIGITS].encode()
