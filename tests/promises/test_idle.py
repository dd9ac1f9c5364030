"""An unused manager costs nothing, and answers the next call at once."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from tests.promises.conftest import Make
from tests.support.waiting import until

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
    time.sleep(5)  # Until unread values have left the hot tier.
    before = time.process_time()
    time.sleep(3)
    print(time.process_time() - before)
    for manager in managers:
        manager.cleanup()
"""


def asleep(manager: MemoryManager) -> bool:
    """Return whether the migrator sleeps until something happens."""
    migrator = manager._services.migrator
    return migrator is not None and migrator._dozing


def test_idle_managers_take_no_processor_time(tmp_path: Path) -> None:
    """150 of them took 37 % of a core: each looked ten times a second for something to do."""
    command = [sys.executable, "-c", textwrap.dedent(IDLE), str(tmp_path)]
    done = subprocess.run(command, check=True, timeout=120, stdout=subprocess.PIPE, text=True)
    # 0.6 s before; processor time, which does not depend on what else the machine does.
    assert float(done.stdout) < 0.2


def test_who_sleeps_still_removes_what_expires(make: Make) -> None:
    """The end of a time to live is known beforehand, so no thread has to poll for it."""
    manager = make(migration=None)
    until(lambda: asleep(manager))
    manager.store("ram", 1, ttl=1.5)
    manager.store("disk", 1, "cold", ttl=1.5)
    until(lambda: asleep(manager) and len(manager._hierarchy.catalog) == 2, 1.4)
    until(lambda: len(manager._hierarchy.catalog) == 0)


def test_who_sleeps_still_sends_down_what_lies_idle(make: Make) -> None:
    """At most five seconds for a value that was never read, however quiet it is meanwhile."""
    manager = make(migration=None)
    manager.store("k", bytes(1000), "hot")
    until(lambda: asleep(manager))
    assert "hot" == manager.get_tier("k")
    until(lambda: manager.get_tier("k") == "warm", 8.0)


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
