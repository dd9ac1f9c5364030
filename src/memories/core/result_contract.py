"""What the decorator `cache` needs of a store of results, and of locks that other processes see."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from memories.core.single_flight import Computation
from memories.engine.payload import Payload


class ResultLocks(Protocol):
    """Lets one of several processes compute a result at a time."""

    @property
    def seconds(self) -> float:
        """How long a call waits for the computation of another process."""

    @property
    def nested_seconds(self) -> float:
        """How long it waits within another computation: two such could wait for each other."""

    def acquire(self, key: str, computation: Computation) -> bool:
        """Acquire the lock of `key`, unless another computation holds it."""

    def release(self, key: str, computation: Computation) -> None:
        """Release the lock of `key` if `computation` holds it."""


class ResultStore(Protocol):
    """Keeps results by key."""

    @property
    def locks(self) -> ResultLocks | None:
        """What other processes that store results look at; None where there are none."""

    def retrieve(self, key: str, default: Any, /, *, copy: bool | None = ...) -> Any:
        """Return the result of `key`, or `default`; without one raise KeyNotFoundError."""

    def retrieve_now(self, key: str, /) -> Any:
        """Return the result of `key` if RAM has it at hand, else `MISSING`; never wait."""

    def scan(self, prefix: str) -> Iterator[str]:
        """Yield the keys that start with `prefix`."""

    def get_tier(self, key: str) -> str:
        """Return the tier that holds the result of `key`; KeyNotFoundError if none does."""

    def delete_prefix(self, prefix: str) -> int:
        """Remove every key that starts with `prefix`."""

    def exists(self, key: str) -> bool:
        """Return whether there is a result of `key`; this does not count as a read."""

    def store(
        self, key: str, result: Any, *, tier: str, ttl: float | None, seconds: float, copy: bool
    ) -> Any:
        """Store a result, which may be dropped for room, and return it as later reads will.

        It took `seconds` to compute. With `copy=False` nothing else refers to its memory.
        """

    def hand_over(
        self, key: str, payload: Payload, /, *, tier: str, ttl: float | None, seconds: float
    ) -> None:
        """Let the process that opened the store keep a result, if it can be reached."""

    def require_writable(self) -> None:
        """Raise unless results can be stored."""

    def require_tier(self, tier: str) -> None:
        """Raise InvalidOptionError unless there is a tier of that name."""

    def open(self, payload: Payload) -> Any:
        """Return the value of a payload, as a read of it would."""
