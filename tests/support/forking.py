"""What a forked child answers, for tests of promise 11; a child that hangs is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

SECONDS = 60  # Only a child that hangs takes so long.


def in_child(action: Callable[[], object]) -> str:
    """Return `repr(action())` from a forked child, or the type and message of what it raised."""
    inlet, outlet = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(SECONDS)
        try:
            answer = repr(action())
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(outlet, answer.encode())
        os._exit(0)
    os.close(outlet)
    with os.fdopen(inlet, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    return said if status == 0 else f"ended with status {status} after {said!r}"
