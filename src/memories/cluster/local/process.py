"""A process identified by its id and start time, so that a signal never goes to another one.

The system reuses process ids; together with the start time an id is unique. The process need not be
a child: it may have been started by a program that has ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass

from memories.errors import StorageError
from memories.foundation.system import PROC

_GONE_SECONDS = 5.0
_LOOK_SECONDS = 0.005


@dataclass(frozen=True)
class ServerProcess:
    """One process; `alive` is false once it has ended, even if its id is used again."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> ServerProcess:
        """Return the process that has this id now."""
        return cls(pid, _start_of(pid) or "")

    def alive(self) -> bool:
        """Return whether it still runs; a child that has ended is reaped."""
        try:
            os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            pass  # Not a child of this process, or reaped before.
        return bool(self.started) and _start_of(self.pid) == self.started

    def send_signal(self, number: signal.Signals) -> bool:
        """Send it a signal, and return whether it was still running."""
        if not self.alive():
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def stop(self, *, gracefully: bool = True) -> None:
        """Stop it, by SIGKILL if SIGTERM has no effect; do nothing if it has ended.

        Raises:
            StorageError: it still runs, which only a hung system call can cause.
        """
        if (
            gracefully
            and self.send_signal(signal.SIGTERM)
            and self.send_signal(signal.SIGCONT)
            and self._wait_until_gone()
        ):
            return
        if self.send_signal(signal.SIGKILL) and not self._wait_until_gone():
            raise StorageError(f"the process {self.pid} was killed and does not end")

    def _wait_until_gone(self) -> bool:
        end = time.monotonic() + _GONE_SECONDS
        while self.alive():
            if time.monotonic() > end:
                return False
            time.sleep(_LOOK_SECONDS)
        return True


def _start_of(pid: int) -> str | None:
    """Return the start time of a process, in the form of the system; None if it has ended."""
    try:
        text = (PROC / str(pid) / "stat").read_text("utf-8", "replace")
    except FileNotFoundError:
        return None if (PROC / "self/stat").exists() else _start_by_ps(pid)
    except ProcessLookupError:
        return None
    fields = text.rpartition(")")[2].split()  # The name before may hold anything, blanks included.
    # Its main thread may have ended while another thread still has its sockets open.
    return None if fields[0] in "ZX" and int(fields[17]) <= 1 else fields[19]


def _start_by_ps(pid: int) -> str | None:
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except subprocess.TimeoutExpired:
        return None
    return run.stdout.strip() or None
