"""Runs a program in a process of its own, and measures what it took.

Programs are functions of a module; the first parameter is a folder that they may fill. In each
round every program runs once, in a new order, and the run with the median time counts.
"""

from __future__ import annotations

import gc
import importlib.util
import multiprocessing
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from days.judging import Run

Program = Callable[..., Any]


def missing(*modules: str) -> str:
    """Return why a twin that needs these modules cannot run; an empty text if it can."""
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


def run(program: Program, folder: Path, *arguments: Any, name: str = "") -> Run:
    """Run `program(folder, *arguments)` in a new process; an error of it is raised here."""
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(theirs, program, folder, arguments))
    process.start()
    theirs.close()
    try:
        outcome = ours.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"{program.__qualname__} ended with {process.exitcode}") from None
    process.join()
    if isinstance(outcome, BaseException):
        raise outcome
    answer, seconds, cpu_seconds, peak_rss = outcome
    disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Run(name or program.__name__, answer, seconds, cpu_seconds, peak_rss, disk)


def script(command: Sequence[object], folder: Path, *, cwd: Path, name: str = "") -> Run:
    """Run a command as from a terminal; the answer is what it prints, `folder` what it may fill.

    The seconds include the start of its interpreter.
    """
    arguments = [str(part) for part in command]
    started = time.perf_counter()
    # Imports read bytecode, as they do for users.
    environment = {
        name: os.environ[name] for name in os.environ if name != "PYTHONDONTWRITEBYTECODE"
    }
    process = subprocess.Popen(
        arguments, cwd=cwd, env=environment, stdout=subprocess.PIPE, text=True
    )
    printed: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lambda out: printed.append(out.read()), args=[process.stdout])
    reader.start()
    peak = 0
    while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
        peak = max(peak, peak_rss(process.pid))
        time.sleep(0.005)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(ended[1])
    reader.join()
    process.stdout.close()
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}")
    usage = ended[2]
    disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return Run(name or Path(arguments[1]).name, printed[0], seconds, cpu_seconds, peak, disk)


def race(
    programs: Mapping[str, Callable[[Path], Run]], folder: Path, *, rounds: int, seed: int = 1
) -> dict[str, Run]:
    """Let each program run once a round, in an empty folder, and return the median run of each."""
    order = list(programs)
    shuffle = random.Random(seed).shuffle
    runs: dict[str, list[Run]] = {name: [] for name in order}
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            place = folder / name.replace(" ", "-").replace("/", "-")
            shutil.rmtree(place, ignore_errors=True)
            runs[name].append(programs[name](place))
            shutil.rmtree(place, ignore_errors=True)
    return {
        name: sorted(runs[name], key=lambda one: one.seconds)[len(runs[name]) // 2]
        for name in programs
    }


def _child(connection: Connection, program: Program, folder: Path, arguments: tuple[Any]) -> None:
    """Run the program, and send what it took, or its error."""
    try:
        gc.collect()
        before = peak_rss()
        started, cpu_started = time.perf_counter(), time.process_time()
        answer = program(folder, *arguments)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
        connection.send((answer, seconds, cpu_seconds, peak_rss() - before))
    except BaseException as error:  # Raised again by the judge.
        connection.send(error)
    finally:
        connection.close()


def peak_rss(pid: int | str = "self") -> int:
    """Return the most bytes a process has held; `ru_maxrss` would include its parent's."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # Not Linux, or it has ended.
        return 0
    return next(
        (int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM")), 0
    )
