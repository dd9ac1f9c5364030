"""Makes room on the device of the hot tier for allocations of the user's own program.

An allocation of torch that has failed cannot be repeated by itself, so the guard makes room and
runs the function again. CuPy allocates through a hook while a guard is active, which retries.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import ParamSpec, TypeVar

from memories.devices import Device
from memories.foundation.units import format_size

ATTEMPTS = 4

P = ParamSpec("P")
R = TypeVar("R")


class OomGuard:
    """Moves values out of the hot tier when the guarded code runs out of device memory.

    As a context it makes `reserve_bytes` of room first; failed allocations of CuPy are retried
    after room was made, and after an out-of-memory error of any library all values that can leave
    are moved, so that the same work fits the next time. As a decorator it runs the function again.
    """

    def __init__(self, device: Device | None, held: Callable[[], int], reserve_bytes: int) -> None:
        self._device = device
        self._held = held
        self._reserve_bytes = reserve_bytes
        self._undo: Callable[[], None] | None = None

    def __enter__(self) -> OomGuard:
        if self._device is not None:
            self._reserve(self._device)
            self._undo = self._device.hook_allocator()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._undo is not None:
            self._undo()
            self._undo = None
        if error is not None and self._make_room(error, 1.0):
            error.add_note(
                "memories has moved values out of device memory: run the same again, "
                "or decorate a function with oom_guard(), which does so by itself"
            )

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return `function`, run again after each out-of-memory error if room could be made."""

        @wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            for attempt in range(1, ATTEMPTS):
                try:
                    return function(*args, **kwargs)
                except Exception as error:
                    if not self._make_room(error, attempt / (ATTEMPTS - 1)):
                        raise
            return function(*args, **kwargs)

        return guarded

    def _reserve(self, device: Device) -> None:
        for _ in range(ATTEMPTS):
            missing = self._reserve_bytes - device.room()
            if missing <= 0 or not device.make_room(missing):
                return
            device.trim()

    def _make_room(self, error: BaseException, share: float) -> bool:
        """Move a share of the tier out; return whether this may prevent `error` the next time."""
        device = self._device
        if device is None or not device.is_full(error):
            return False
        made_room = device.make_room(int(self._held() * share))
        device.trim()
        return made_room

    def __repr__(self) -> str:
        name = None if self._device is None else self._device.name
        return f"<OomGuard of {name}, {format_size(self._reserve_bytes)} reserved>"
