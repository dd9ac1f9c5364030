"""What orders the writes of one key: a counter, and the writer's id where two drew the same.

Not a clock that must be right. The counter is at least one more than any a writer has learnt of;
that it also follows the wall clock only makes it survive tombstones that were swept.
"""

from __future__ import annotations

import secrets
from typing import NamedTuple, Self

TEXT_BYTES = 32
_MAX_COUNTER = (1 << 64) - 1
_MICROSECONDS = 1_000_000


class RegisterVersion(NamedTuple):
    """A version of a key; the greater one is newer."""

    counter: int
    client: int

    @property
    def text(self) -> bytes:
        """Return 32 hexadecimal digits that sort as versions do, on a server too."""
        return b"%016x%016x" % self

    @property
    def at_seconds(self) -> float:
        """Return about when it was written, by the writer's wall clock."""
        return self.counter / _MICROSECONDS

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Return the version in 32 hexadecimal digits; ValueError if it is none."""
        if len(text) != TEXT_BYTES:
            raise ValueError(f"a version has {TEXT_BYTES} digits, not {len(text)}")
        return cls(int(text[:16], 16), int(text[16:], 16))

    def __str__(self) -> str:
        return self.text.decode()


ABSENT = RegisterVersion(0, 0)


def new_client() -> int:
    """Return an id for one manager, unlike any other's."""
    return secrets.randbits(64) or 1


def successor(highest: RegisterVersion, client: int, wall_seconds: float) -> RegisterVersion:
    """Return the version of a write that has learnt of `highest`."""
    counter = max(highest.counter + 1, int(wall_seconds * _MICROSECONDS))
    return RegisterVersion(min(counter, _MAX_COUNTER), client)
