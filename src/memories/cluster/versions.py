"""The version that orders the writes of one key: a counter, then the id of the writer.

The counter is greater than any that the writer has read. It is also at least the wall time in
microseconds, so that it exceeds the counters of tombstones that were removed. Correctness does not
depend on that clock.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable
from typing import Self

TEXT_BYTES = 32
_CLIENT_BITS = 64
_MAX_CLIENT = (1 << _CLIENT_BITS) - 1
_MAX_COUNTER = (1 << 64) - 1
_MICROSECONDS = 1_000_000


class RegisterVersion(int):
    """A version of a key; the greater one is newer.

    It is one number, the counter before the client: ten thousand of them are compared in few steps,
    and the garbage collector never looks at them.
    """

    __slots__ = ()

    def __new__(cls, counter: int, client: int) -> Self:
        """Return the version with this counter and client."""
        return int.__new__(cls, counter << _CLIENT_BITS | client)

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Return the version with this text.

        Raises:
            ValueError: it is not hexadecimal.
        """
        return int.__new__(cls, text, 16)

    @property
    def counter(self) -> int:
        """Return what exceeds the counters of all versions that its writer has read."""
        return self >> _CLIENT_BITS

    @property
    def client(self) -> int:
        """Return the id of its writer, which differs from write to write."""
        return self & _MAX_CLIENT

    @property
    def text(self) -> bytes:
        """Return 32 hexadecimal digits that sort as versions do, on a server too."""
        return b"%032x" % self

    @property
    def at_seconds(self) -> float:
        """Return approximately when it was written, by the writer's wall clock."""
        return self.counter / _MICROSECONDS

    def __str__(self) -> str:
        return self.text.decode()


ABSENT = RegisterVersion(0, 0)


class VersionMaker:
    """Makes the versions of one manager; no two of its writes get the same one.

    Two threads may store one key in the same microsecond, so each version has a client of its own.

    Args:
        wall: Returns seconds since the epoch.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        # Every second one: a tombstone of a value that has expired has the one in between.
        self._clients = itertools.count(secrets.randbits(63) or 1, 2)

    def successor(self, highest: RegisterVersion = ABSENT) -> RegisterVersion:
        """Return the version of a write whose writer has read `highest`."""
        return successor(highest, next(self._clients), self._wall())


def successor(highest: RegisterVersion, client: int, wall_seconds: float) -> RegisterVersion:
    """Return the version of a write by `client`, which has read `highest`."""
    counter = max(highest.counter + 1, int(wall_seconds * _MICROSECONDS))
    return RegisterVersion(min(counter, _MAX_COUNTER), client)
