"""Feeds damaged bytes to one reader, for so many seconds.

    python tests/torture/fuzz/run.py TARGET SEED SECONDS FOLDER
    python tests/torture/fuzz/run.py TARGET replay FILE

An input is bytes, and what it stands for is the business of its target. Any error of ours is right;
a foreign error, a slow input, gigabytes or the end of the process are bugs. The input that is being
tried lies in FOLDER/input, to be replayed after a crash. Each run begins with the inputs in
`tests/torture/corpus`, which were bugs once.
"""

from __future__ import annotations

import importlib
import logging
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).resolve().parents[3]
CORPUS = ROOT / "tests" / "torture" / "corpus"
MAX_SECONDS = 40
MAX_BYTES = 8 << 30

# The module of each target, and whether all checksums are one number there: an attacker computes
# them anew, and a fuzzer would never get past them.
TARGETS = {
    **dict.fromkeys(("cold", "log", "snapshot", "archive", "bucket", "map"), ("files", True)),
    **dict.fromkeys(("telemetry", "configuration"), ("texts", False)),
    **dict.fromkeys(("numpy", "scipy", "pandas", "xarray", "pyarrow", "polars"), ("values", False)),
    **dict.fromkeys(("geo", "image", "capsule", "sparse"), ("values", False)),
    "register": ("nodes", True),
    "reply": ("nodes", False),
    "message": ("messages", False),
    **dict.fromkeys(("sealed-cold", "sealed-snapshot", "sealed-bucket"), ("sealed", True)),
    **dict.fromkeys(("sealed-map", "sealed-register", "sealed-keys"), ("sealed", True)),
}


class Target(Protocol):
    """One reader, and what is fed to it."""

    def prepare(self, folder: Path) -> None:
        """Make what is to be damaged, in an empty folder."""

    def damaged(self, rng: random.Random) -> bytes:
        """Return an input."""

    def attempt(self, data: bytes) -> bool:
        """Read an input, and use what comes out; return whether anything did.

        Errors of ours are caught here.
        """

    def close(self) -> None:
        """End what `prepare` began."""


def load(name: str) -> Target:
    """Return a target by its name."""
    module, constant_sums = TARGETS[name]
    if constant_sums:
        importlib.import_module("tests.torture.fuzz.sums")  # Before any module of the package.
    target: Target = importlib.import_module(f"tests.torture.fuzz.{module}").TARGETS[name]()
    return target


def too_slow(*_: object) -> None:
    """Raise what nothing in the package catches."""
    raise TimeoutError(f"an input took more than {MAX_SECONDS} seconds")


def attempt(target: Target, data: bytes) -> bool:
    """Try one input within the limits; what a thread in the background fails with counts, too."""
    signal.alarm(MAX_SECONDS)
    try:
        sound = target.attempt(data)
    finally:
        signal.alarm(0)
    assert not failures, failures[0]
    return sound


class Failures(logging.Handler):
    """Keeps the foreign errors that are logged."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the error of a record, if there is one."""
        keep(record.exc_info[1] if record.exc_info else None)


def keep(error: BaseException | None) -> None:
    """Keep an error with the lines that led to it, unless it is one of ours."""
    ours = importlib.import_module("memories").MemoriesError
    if error is not None and not isinstance(error, ours):
        failures.append("".join(traceback.format_exception(error)))


failures: list[str] = []  # Of threads in the background.


def main(name: str, seed: int, seconds: float, folder: Path) -> None:
    """Try what was a bug once, then damaged inputs for so many seconds."""
    target, rng, tried, sound = load(name), random.Random(seed), 0, 0
    inside = folder / name
    inside.mkdir(parents=True)
    target.prepare(inside)
    known = [path.read_bytes() for path in sorted(CORPUS.glob(f"{name}/*"))]
    end = time.monotonic() + seconds
    while known or time.monotonic() < end:
        data = known.pop() if known else target.damaged(rng)
        (folder / "input").write_bytes(data)
        sound += attempt(target, data)
        tried += 1
    target.close()
    shutil.rmtree(inside)
    (folder / "input").unlink(missing_ok=True)
    print(f"{tried} tried, {sound} could be read")


def replay(name: str, path: Path) -> None:
    """Try the input in a file."""
    target = load(name)
    with tempfile.TemporaryDirectory() as folder:
        target.prepare(Path(folder))
        print(attempt(target, path.read_bytes()))
        target.close()


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    os.environ["RUST_BACKTRACE"] = "0"
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    signal.signal(signal.SIGALRM, too_slow)
    warnings.simplefilter("ignore")
    threading.excepthook = lambda about: keep(about.exc_value)
    logging.getLogger("memories").addHandler(Failures())
    if sys.argv[2] == "replay":
        replay(sys.argv[1], Path(sys.argv[3]))
    else:
        os.environ["MEMORIES_KEY_FILE"] = str(Path(sys.argv[4], "keys"))
        main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]))
