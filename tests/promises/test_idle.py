"""An unused manager costs nothing, and answers the next call at once."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from tests.promises.conftest import Make
from tests.support.waiting import comes_true, until

from memories import MemoryManager

IDLE = """
    import sys, time
    from memories import MemoryManager
    managers = []
    for number in range(30):
        path = f"{sys.argv[1]}/{number}" if number % 4 == 0 else None
        manager = MemoryManager("5 MB", "5 MB", "20 MB", number % 8 == 0, storage_path=path)
        if number % 2:
            for key in range(20):
                manager.store(f"k{key}", [key], ["hot", "warm", "cold"][key % 3])
                manager.retrieve(f"k{key}")
        managers.append(manager)
    while not all(manager._services.migrator._dozing for manager in managers):
        time.sleep(0.05)  # Until unread values have left the hot tier.
    least = 1.0
    for window in range(20):  # What a busy machine adds, it does not add to each.
        before = time.process_time()
        time.sleep(1)
        least = min(least, time.process_time() - before)
        if least < float(sys.argv[2]):
            break
    print(least)
    for manager in managers:
        manager.cleanup()
"""


def asleep(manager: MemoryManager) -> bool:
    """Return whether the migrator sleeps until something happens."""
    migrator = manager._services.migrator
    return migrator is not None and migrator._dozing


def test_idle_managers_take_no_processor_time(tmp_path: Path) -> None:
    """150 of them took 37 % of a core: each looked ten times a second for something to do."""
    # In a second; it was 0.2 s before.
    command = [sys.executable, "-c", textwrap.dedent(IDLE), str(tmp_path), "0.06"]
    done = subprocess.run(command, check=True, timeout=110, stdout=subprocess.PIPE, text=True)
    assert float(done.stdout) < 0.06


def test_who_sleeps_still_removes_what_expires(make: Make) -> None:
    """The end of a time to live is known beforehand, so no thread has to poll for it."""
    manager = make(migration=None)
    until(lambda: asleep(manager))
    catalog = manager._hierarchy.catalog

    def sleeps_and_removes() -> bool:
        manager.store("ram", 1, ttl=1.0)
        manager.store("disk", 1, "cold", ttl=1.0)
        # On a busy machine the keys may have expired before.
        slept = comes_true(lambda: asleep(manager) and len(catalog) == 2, 0.9)
        until(lambda: len(catalog) == 0)
        return slept

    until(sleeps_and_removes)


def test_who_sleeps_still_sends_down_what_lies_idle(make: Make) -> None:
    """After five seconds for a value that was never read, however quiet it is meanwhile."""
    manager = make(migration=None)
    manager.store("k", bytes(1000), "hot")
    until(lambda: asleep(manager))
    assert "hot" == manager.get_tier("k")
    until(lambda: manager.get_tier("k") == "warm")


def test_a_read_wakes_a_sleeping_thread(make: Make) -> None:
    """A value that is read after the sleep is promoted, as if no thread had slept."""
    manager = make(migration=None, prefetch="off")
    manager.store("disk", bytes(1000), "cold")
    manager.store("ram", bytes(1000), "warm")
    until(lambda: asleep(manager))
    manager.retrieve("disk")
    until(lambda: manager.get_tier("disk") == "warm")
    until(lambda: asleep(manager))
    manager.retrieve("ram")
    until(lambda: manager.get_tier("ram") == "hot")
