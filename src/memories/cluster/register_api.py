"""What the store asks of registers, whichever way they are replicated.

A vocabulary of four records and one interface; `plain` and `slots` implement it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from memories.cluster.manifest import ChunkUpload
from memories.cluster.register_format import RegisterKind
from memories.cluster.versions import RegisterVersion


class RegisterBody(NamedTuple):
    """What is to stand in a register."""

    kind: RegisterKind
    segments: Sequence[memoryview] = ()


class FoundRegister(NamedTuple):
    """What stands in a register. `body` is None where only the version was asked for."""

    version: RegisterVersion
    kind: RegisterKind
    body: memoryview | None


class WrittenRegister(NamedTuple):
    """A write that was acknowledged, and the chunks of the value that it replaced."""

    version: RegisterVersion
    replaced: ChunkUpload | None


class Registers(ABC):
    """Reads and writes registers, each linearizable by itself; many at a time for their cost."""

    @abstractmethod
    def read(
        self, names: Sequence[bytes], *, fetch: bool = True
    ) -> dict[bytes, FoundRegister | Exception | None]:
        """Return what stands in each register: None for never written or swept.

        With `fetch=False` the bodies of large values may be left out.

        The exceptions are `UnavailableError` (could not find out) and `CorruptDataError`.
        """

    @abstractmethod
    def write(
        self, bodies: Mapping[bytes, RegisterBody], *, if_version: int | None = None
    ) -> dict[bytes, WrittenRegister | Exception]:
        """Write each register, newer than all that was acknowledged before.

        The exceptions are `UnavailableError` (nothing was stored), `ReplicationError` (in doubt)
        and `ConflictError` (it is not at `if_version`).
        """

    @abstractmethod
    def scan(self, prefix: bytes) -> Iterator[list[bytes]]:
        """Yield batches of the names of all registers that start with `prefix`, maybe repeatedly.

        Raises:
            UnavailableError: too few nodes answer to know of all.
        """
