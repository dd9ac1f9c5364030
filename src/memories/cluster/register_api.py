"""The interface of replicated registers; `quorum` and `valkey_cluster` implement it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from memories.cluster.manifest import ChunkUpload
from memories.cluster.register_copy import RegisterCopy
from memories.cluster.register_format import HEADER_BYTES, Buffer, RegisterBody, RegisterKind
from memories.cluster.versions import RegisterVersion


class FoundRegister(msgspec.Struct, frozen=True, gc=False):
    """The content of a register. `body` is None where only the version was requested.

    There may be ten thousand at once, and the garbage collector need not look at any of them.
    """

    version: RegisterVersion
    kind: RegisterKind
    body: Buffer | None
    expires_ms: int = 0  # Set where there is no body; else the body has it.


def found_register(copy: RegisterCopy) -> FoundRegister | None:
    """Return the content that a copy shows; None if it shows that there is no register."""
    if copy.header is None:
        return None
    body = None if copy.data is None else memoryview(copy.data)[HEADER_BYTES:]
    return FoundRegister(copy.header.version, copy.header.kind, body, copy.expires_ms)


class WrittenRegister(NamedTuple):
    """An acknowledged write, and the chunks of the value that it replaced."""

    version: RegisterVersion
    replaced: ChunkUpload | None


class Registers(ABC):
    """Reads and writes registers; a call for many of them needs few requests to each node."""

    @abstractmethod
    def read(
        self, names: Sequence[bytes], *, fetch: bool = True
    ) -> dict[bytes, FoundRegister | Exception | None]:
        """Return the content of each register: None if it was never written.

        With `fetch=False` the bodies may be left out.

        The exceptions are `UnavailableError` (too few nodes answer) and `CorruptDataError`.
        """

    @abstractmethod
    def write(
        self, bodies: Mapping[bytes, RegisterBody], *, if_version: int | None = None
    ) -> dict[bytes, WrittenRegister | Exception]:
        """Write each register, with a version above all that were acknowledged before.

        The exceptions are `UnavailableError` (nothing was stored), `ReplicationError` (in doubt)
        and `ConflictError` (the register is not at `if_version`).
        """

    @abstractmethod
    def settle(self, ended: Mapping[bytes, RegisterVersion]) -> set[bytes]:
        """Let the tombstones of these versions vanish from the nodes after a while.

        Returns the names that need nothing more; the others must be given again.
        """

    @abstractmethod
    def scan(self, prefix: bytes) -> Iterator[list[bytes]]:
        """Yield batches of the names of all registers that start with `prefix`; names may repeat.

        Raises:
            UnavailableError: too few nodes answer to list all of them.
        """
