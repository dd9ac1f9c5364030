"""`memories bench`: measures this machine in a few seconds, beside the plain NumPy operations.

It shows whether a disk, a mount or a machine is as fast as expected. The benchmarks of the project,
which compare other libraries, are separate programs.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import click

from memories.cli.output import print_json
from memories.cli.store import json_option

ROUNDS = 7


class BenchResult(NamedTuple):
    """One measured value and its unit."""

    name: str
    value: float
    unit: str


@click.command()
@click.option(
    "--at",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The directory whose disk is measured; by default that of temporary files.",
)
@click.option(
    "--megabytes", default=32, show_default=True, type=click.IntRange(1, 4096), help="Per array."
)
@json_option
def bench(at: Path | None, megabytes: int, as_json: bool) -> None:
    """Measure hits, stores and retrieves on this machine, in a few seconds.

    Writes into a new directory and removes it again. Every figure is the median of seven.
    """
    with tempfile.TemporaryDirectory(prefix="memories-bench-", dir=at) as directory:
        figures = measure(Path(directory), megabytes)
    if as_json:
        print_json({one.name: {"value": one.value, "unit": one.unit} for one in figures})
        return
    for one in figures:
        click.echo(f"{one.name:<32}{one.value:>12,.1f} {one.unit}")


def measure(directory: Path, megabytes: int) -> list[BenchResult]:
    """Return the results for the disk that `directory` is on."""
    import numpy as np

    from memories import MemoryManager

    small = np.arange(128.0)
    large = np.random.default_rng(1).random(megabytes * 125_000)
    size = large.nbytes / 1e6
    path = directory / "plain.npy"
    room = f"{8 * megabytes} MB"
    with MemoryManager(room, room, 100, storage_path=directory / "store") as manager:
        manager.store("small", small, tier="warm", pin=True)
        figures = [
            BenchResult("hit of 1 KB in warm", 1e6 * _each(lambda: manager["small"], 20_000), "us"),
            BenchResult("dict, then a view", 1e6 * _each(lambda: small.view(), 20_000), "us"),
            BenchResult(
                f"store {megabytes} MB, warm",
                size / _median(lambda: manager.store("large", large, tier="warm")),
                "MB/s",
            ),
            BenchResult("copy of the same array", size / _median(large.copy), "MB/s"),
        ]
        manager.delete("large")
        figures += [
            BenchResult(
                f"store {megabytes} MB, cold",
                size / _median(lambda: manager.store("large", large, tier="cold")),
                "MB/s",
            ),
            BenchResult("numpy.save of it", size / _median(lambda: np.save(path, large)), "MB/s"),
            BenchResult(
                f"retrieve {megabytes} MB, cold",
                size / _median(lambda: manager.retrieve("large", copy=True)),
                "MB/s",
            ),
            BenchResult("numpy.load of it", size / _median(lambda: np.load(path)), "MB/s"),
        ]
    return figures


def _median(work: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(ROUNDS):
        started = perf_counter()
        work()
        seconds.append(perf_counter() - started)
    return statistics.median(seconds)


def _each(work: Callable[[], Any], times: int) -> float:
    def repeat() -> None:
        for _ in range(times):
            work()

    return _median(repeat) / times
