"""Room for the caller's own allocations on the device that the hot tier lies on.

Not an allocator: it cannot make one that has failed succeed after all. It makes room, and runs a
function again. (CuPy asks for memory through a function of ours meanwhile, so there it can.)
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
    """Makes the hot tier give way when what it guards runs out of the device's memory.

    As a context it makes `reserve_bytes` of room first; CuPy's allocations in it are relieved and
    tried again, and after an error of any library all that could leave has left, so that the same
    work will fit when it is run again. As a decorator it runs the function again by itself.
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
        if error is not None and self._relieved(error, 1.0):
            error.add_note(
                "memories has moved what it could out of the device's memory: run the same again, "
                "or decorate a function with oom_guard(), which does so by itself"
            )

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return `function`, run again after each out-of-memory error that room can be made for."""

        @wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            for attempt in range(1, ATTEMPTS):
                try:
                    return function(*args, **kwargs)
                except Exception as error:
                    if not self._relieved(error, attempt / (ATTEMPTS - 1)):
                        raise
            return function(*args, **kwargs)

        return guarded

    def _reserve(self, device: Device) -> None:
        for _ in range(ATTEMPTS):
            missing = self._reserve_bytes - device.room()
            if missing <= 0 or not device.make_room(missing):
                return
            device.trim()

    def _relieved(self, error: BaseException, share: float) -> bool:
        """Make a share of the tier leave, and return whether that may help against `error`."""
        device = self._device
        if device is None or not device.is_full(error):
            return False
        eased = device.make_room(int(self._held() * share))
        device.trim()
        return eased

    def __repr__(self) -> str:
        name = None if self._device is None else self._device.name
        return f"<OomGuard of {name}, {format_size(self._reserve_bytes)} reserved>"
