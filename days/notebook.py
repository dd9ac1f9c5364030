"""Day 3: a notebook whose cells run twice, are interrupted, and whose kernel is restarted.

Real kernels execute the cells. After each mishap a later cell counts what is no longer there: every
value whose `store` returned, or which was durable where the kernel was killed, must be.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from days.judging import Bar, Judgement, Run, Scale
from days.running import missing, run

OPEN = """
import numpy as np
from memories import MemoryManager
manager = MemoryManager("500MB", "1GB", "20GB", storage_path="store")
manager
"""
HELPER = "def weight(year): return {}"
SLOW = """
@manager.cache
def composite(year):
    print("computed", year)
    time.sleep(0.2)
    return np.full(({rows}, 1000), weight(year), np.float32)
for year in range(2020, 2024):
    assert composite(year)[0, 0] == weight(year)
"""
INTERRUPTED = """
stored = globals().get("stored", {{}})
noise = np.random.default_rng(1).random({rows} * 10)
Path("started").touch()
for number in range(len(stored), 10**6):
    manager.store(f"scene/{{number}}", noise + number)
    stored[f"scene/{{number}}"] = number
"""
SLEEPING = """
@manager.cache
def endless(seconds):
    Path("started").touch()
    time.sleep(seconds)
    return seconds
endless(60)
"""
OUT_OF_MEMORY = """
import resource
with open("/proc/self/statm") as file:
    now = int(file.read().split()[0]) * resource.getpagesize()
limits = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (now + 150_000_000, limits[1]))
caught = 0
try:
    for number in range(100):
        name = f"large/{number}"
        try:
            manager.store(name, np.full(2_000_000, float(number)))
            stored[name] = number
        except MemoryError:
            caught += 1
finally:
    resource.setrlimit(resource.RLIMIT_AS, limits)
assert caught
"""
COUNT = """
lost = sum(
    not np.array_equal(manager.get(f"scene/{{number}}", ()), noise + number)
    for number in range({count})
)
print("lost", lost)
"""
COUNT_LARGE = """
names = [name for name in stored if name.startswith("large/")]
print("lost", sum(not (manager.get(name, -np.ones(1)) == stored[name]).all() for name in names))
"""
NOISE = """
import numpy as np
noise = np.random.default_rng(1).random({rows} * 10)
"""
LATE = """
for number in range({count}, {count} + 100):
    manager.store(f"scene/{{number}}", noise + number)
"""


class Kernel:
    """A notebook and its kernel."""

    def __init__(self, folder: Path) -> None:
        import nbformat
        from nbclient import NotebookClient

        self.book = nbformat.v4.new_notebook()
        self._new_cell = nbformat.v4.new_code_cell
        self._client: Any = NotebookClient(
            self.book, timeout=240, resources={"metadata": {"path": str(folder)}}
        )
        self._client.create_kernel_manager()
        self._start()

    def _start(self) -> None:
        self._client.start_new_kernel()
        self._client.start_new_kernel_client()
        self.cell("import os, time\nfrom pathlib import Path")

    def cell(self, source: str) -> str:
        """Run a new cell and return what it shows; its errors are CellExecutionErrors."""
        self.book.cells.append(self._new_cell(source.strip()))
        cell = self._client.execute_cell(self.book.cells[-1], len(self.book.cells) - 1)
        shown = (out.get("text") or out["data"]["text/plain"] for out in cell.outputs)
        return "".join(shown)

    def interrupted(self, source: str, started: Path, seconds: float) -> None:
        """Run a cell, and interrupt it some time after it has made the file `started`."""
        from nbclient.exceptions import CellExecutionError

        started.unlink(missing_ok=True)

        def interrupt() -> None:
            while not started.exists():
                time.sleep(0.01)
            time.sleep(seconds)
            os.kill(self._client.km.provisioner.pid, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            self.cell(source)
        except CellExecutionError as error:
            assert error.ename == "KeyboardInterrupt", error
        else:
            raise AssertionError("the cell was not interrupted")
        finally:
            thread.join()

    def restart(self, *, kill: bool = False) -> None:
        """Restart the kernel, as the button of Jupyter does, or after it was killed."""
        self.close(kill=kill)
        self._client.create_kernel_manager()
        self._start()

    def close(self, *, kill: bool = False) -> None:
        """End the kernel, which has five seconds for what it does at its exit."""
        from jupyter_core.utils import run_sync

        if kill:
            os.kill(self._client.km.provisioner.pid, signal.SIGKILL)
        self._client.kc.stop_channels()
        run_sync(self._client.km.shutdown_kernel)(now=kill)


def day(folder: Path, rows: int, interrupts: int) -> dict[str, int]:
    """Work with a notebook for a day; return what was lost, and computed, after each mishap."""
    found: dict[str, int] = {}
    book = Kernel(folder)
    book.cell(OPEN)
    book.cell(HELPER.format("year"))
    slow = SLOW.format(rows=rows)
    found["computed at first"] = book.cell(slow).count("computed")
    found["computed when the cells run again"] = book.cell(slow).count("computed")
    found["no word what to do when opened again"] = int(not _opens_again(book))
    book.cell(HELPER.format("year + 1"))
    found["computed after an edited helper"] = book.cell(slow).count("computed")
    found["lost after an interrupt"] = 0
    for number in range(interrupts):
        book.interrupted(INTERRUPTED.format(rows=rows), folder / "started", 0.05 + number / 20)
        count = int(book.cell("print(len(stored))"))
        found["lost after an interrupt"] += _lost(book.cell(COUNT.format(count=count)))
        book.interrupted(SLEEPING, folder / "started", 0.1)
    book.cell(OUT_OF_MEMORY)
    found["lost after a MemoryError"] = _lost(book.cell(COUNT_LARGE))
    found["lost after a MemoryError"] += _lost(book.cell(COUNT.format(count=count)))
    assert count, "nothing was stored before the interrupts"

    other = Kernel(folder)
    message = other.cell(
        "from memories import StoreLockedError\n"
        + OPEN.replace("manager\n", "").replace("manager =", "try: manager =")
        + "except StoreLockedError as error: print(error)"
    )
    found["second notebook gets no word what to do"] = int("read_only" not in message)
    other.cell(OPEN.replace('path="store"', 'path="store", read_only=True'))
    book.cell("manager.flush()")
    other.cell(NOISE.format(rows=rows))
    found["lost to the second notebook"] = _lost(other.cell(COUNT.format(count=count)))
    other.close()

    book.cell(LATE.format(count=count))  # They are in RAM only.
    count += 100
    book.restart()
    book.cell(OPEN + NOISE.format(rows=rows))
    found["lost after a restart"] = _lost(book.cell(COUNT.format(count=count)))
    book.cell(HELPER.format("year + 1"))
    found["computed after a restart"] = book.cell(slow).count("computed")
    book.restart(kill=True)
    book.cell(OPEN + NOISE.format(rows=rows))
    found["lost after a kill"] = _lost(book.cell(COUNT.format(count=count)))
    book.cell("manager.cleanup()")
    book.close()
    found["stored"] = count
    return found


def _opens_again(book: Kernel) -> bool:
    """Run the cell that opens the manager again; return whether it works, or says what to do."""
    from nbclient.exceptions import CellExecutionError

    try:
        return "MemoryManager" in book.cell(OPEN)
    except CellExecutionError as error:
        return "cleanup()" in str(error.evalue)


def _lost(shown: str) -> int:
    words = shown.split()
    return int(words[words.index("lost") + 1])


def judge(scale: Scale, folder: Path) -> Judgement:
    """Let a notebook have a bad day."""
    title = "Notebook: cells run twice, interrupted, restarted, killed"
    why = missing("nbclient", "ipykernel")
    if why:
        return Judgement(title, {}, [], absent={"memories": why})
    rows, interrupts = (10, 2) if scale is Scale.SMALL else (2_000, 10)
    one: Run = run(day, folder, rows, interrupts, name="memories")
    found: dict[str, int] = one.answer
    expected = {"computed at first": 4, "computed after an edited helper": 4}
    for name, count in expected.items():
        assert found.pop(name) == count, name
    stored = found.pop("stored")
    bars = [Bar(name, count, 0, counted=True) for name, count in found.items()]
    return Judgement(title, {"memories": one}, bars, facts={"values stored": stored})
