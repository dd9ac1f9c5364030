"""A thread that asks an object to look, now and then, for as long as there is such an object.

It holds the object weakly, so that whoever is forgotten by the program takes the thread with him,
and it never outlives a look that failed.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

from memories.errors import ClosedError
from memories.logs import logger

STOP_SECONDS = 5.0


class Ticker:
    """Calls a bound method every so often, from `start` until `stop` or until it returns False.

    Args:
        look: The method; its object is not kept alive.
        interval_seconds: Between two calls.
        name: What the thread is called, `memories-` in front of it.
    """

    def __init__(self, look: Callable[[], bool], interval_seconds: float, name: str) -> None:
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=_run,
            args=(weakref.WeakMethod(look), self._stopped, interval_seconds, name),
            name=f"memories-{name}",
            daemon=True,
        )

    @property
    def stopped(self) -> bool:
        """Return whether it was told to end."""
        return self._stopped.is_set()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it. Idempotent."""
        self._stopped.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(STOP_SECONDS)


def _run(
    method: weakref.WeakMethod[Callable[[], bool]],
    stopped: threading.Event,
    interval_seconds: float,
    name: str,
) -> None:
    while not stopped.wait(interval_seconds):
        look = method()
        try:
            if look is None or not look():
                return
        except ClosedError:
            return
        except Exception:
            logger.exception("%s could not take a look, and ends here", name)
            return
        del look
