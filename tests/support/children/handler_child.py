"""The process that `test_handlers.py` sends SIGTERM, again and again, while it is at work.

Run as `python -m tests.support.children.handler_child WHAT PATH SEED`: two threads store, read and
move values in all tiers. The handler does WHAT, and prints how that ended and how long it took.
SIGUSR1 ends the process with `cleanup()`, after which it prints what is durable.
"""

from __future__ import annotations

import faulthandler
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from memories import BusyError, ClosedError, MemoriesError, MemoryManager

HANG_SECONDS = 60.0
TIERS = ("auto", "auto", "hot", "warm", "cold", "cold", "glacier")


def work(manager: MemoryManager, chance: random.Random, ends: Callable[[], bool]) -> None:
    """Store, read, move and remove until the manager is closed."""
    while not ends():
        key = f"{chance.choice('abcd')}{chance.randrange(40)}"
        with suppress(KeyError, BusyError):
            match chance.randrange(9):
                case 0 | 1 | 2:
                    data = chance.randbytes(chance.choice((50, 3_000, 9_000)))
                    manager.store(key, data, chance.choice(TIERS))
                case 3 | 4 | 5:
                    manager.retrieve(key)
                case 6:
                    manager.migrate(key, chance.choice(TIERS[2:]))
                case 7:
                    manager.delete(key)
                case _:
                    manager.store_many({f"{key}/{one}": key for one in range(20)})


def main(what: str, path: str, seed: int) -> None:
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    manager = MemoryManager(
        "200 kB",
        "300 kB",
        "20 MB",
        True,
        storage_path=f"{path}/store",
        glacier_url=f"{path}/bucket",
    )
    manager.store("durable", b"since the beginning", "cold")
    ended = False
    calls: dict[str, Callable[[], object]] = {
        "cleanup": manager.cleanup,
        "flush": manager.flush,
        "store": lambda: [manager.store("handler", b"x" * 3_000, tier) for tier in TIERS],
        "read": lambda: [manager.retrieve("durable"), manager.stats(), len(list(manager))],
    }

    def handler(*_: object) -> None:
        nonlocal ended
        began = time.monotonic()
        try:
            calls[what]()
        except BusyError:
            outcome = "busy"
        else:
            outcome = "done"
            ended = ended or what == "cleanup"
        # One write: another signal may come in the middle of a print.
        os.write(1, f"{outcome} {time.monotonic() - began:.3f}\n".encode())

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGUSR1, end)
    other = threading.Thread(target=outlive, args=(manager, seed + 1, lambda: ended))
    other.start()
    os.write(1, b"ready\n")
    outlive(manager, seed, lambda: ended)
    other.join()
    os.kill(os.getpid(), signal.SIGTERM)  # Nothing is at work: whatever the luck, this one is done.
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    manager.cleanup()
    os.write(1, b"ended\n")


def outlive(manager: MemoryManager, seed: int, ends: Callable[[], bool]) -> None:
    """Work until the end."""
    with suppress(ClosedError):
        try:
            work(manager, random.Random(seed), ends)
        except MemoriesError:
            if not ends():
                raise


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
