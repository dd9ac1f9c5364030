"""Repeats requests that failed for the moment, a few times and for a limited time.

An answer of the store (absent, refused, archived) is passed on at once. The waits grow and are
random, so that many clients do not return at the same moment.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple, TypeVar

from memories.backends.bucket.objectstore import BeforeSend, Buffer, ObjectStore, Stat, Transient
from memories.errors import UnavailableError
from memories.foundation.worker_pool import is_abandoned

T = TypeVar("T")


class RetryPolicy(NamedTuple):
    """How often and how long a request is tried."""

    attempts: int = 5
    total_seconds: float = 30.0  # No attempt begins later than this after the first.
    first_wait_seconds: float = 0.1
    longest_wait_seconds: float = 5.0


class RetryingStore(ObjectStore):
    """Another object store, whose failed requests are repeated."""

    def __init__(self, inner: ObjectStore, policy: RetryPolicy) -> None:
        self._inner = inner
        self._policy = policy
        self.url = inner.url

    def put(self, name: str, buffers: Sequence[Buffer], sending: BeforeSend | None = None) -> None:
        """Put, with retries; what is sent again is announced again."""
        self._attempt("write", lambda: self._inner.put(name, buffers, sending))

    def put_if(self, name: str, data: bytes, tag: str | None) -> str:
        """Put if unchanged, with retries; a conflict may be with an own attempt that timed out."""
        return self._attempt("write", lambda: self._inner.put_if(name, data, tag))

    def get(self, name: str) -> tuple[bytes, str]:
        """Get, with retries."""
        return self._attempt("read", lambda: self._inner.get(name))

    def get_range(self, name: str, offset: int, length: int) -> Buffer:
        """Get a range, with retries."""
        return self._attempt("read", lambda: self._inner.get_range(name, offset, length))

    def delete(self, name: str) -> None:
        """Delete, with retries."""
        self._attempt("delete", lambda: self._inner.delete(name))

    def list(self, prefix: str) -> Iterator[Stat]:
        """List whole, with retries."""
        return iter(self._attempt("list", lambda: list(self._inner.list(prefix))))

    def honours_conditions(self) -> bool:
        """Ask the other store, with retries."""
        return self._attempt("write", self._inner.honours_conditions)

    def forget_probe(self) -> None:
        """Tell the other store, with retries."""
        self._attempt("delete", self._inner.forget_probe)

    def abandoned_uploads(self, names: Collection[str] | None) -> Sequence[str] | None:
        """Tell the other store, with retries."""
        return self._attempt("abort", lambda: self._inner.abandoned_uploads(names))

    def restore(self, name: str, days: int) -> None:
        """Ask the other store to restore an object."""
        self._inner.restore(name, days)

    def close(self) -> None:
        """Close the other store."""
        self._inner.close()

    def _attempt(self, action: str, request: Callable[[], T]) -> T:
        begun, wait = time.monotonic(), self._policy.first_wait_seconds
        attempt = 1
        while True:
            try:
                return request()
            except Transient as error:
                pause = wait * random.uniform(0.5, 1.0)
                spent = time.monotonic() - begun
                if (
                    attempt >= self._policy.attempts
                    or spent + pause > self._policy.total_seconds
                    or is_abandoned()
                ):
                    raise UnavailableError(
                        f"the archive {self.url} did not {action} an object: {error} "
                        f"({attempt} attempts in {spent:.1f} s): check the network and the service"
                    ) from error.__cause__
            time.sleep(pause)
            wait = min(2 * wait, self._policy.longest_wait_seconds)
            attempt += 1
