"""Damages files of a store, a snapshot or an archive whose checksums all hold, and uses them.

    python tests/torture/fuzz_readers.py SEED SECONDS FOLDER [cold | snapshot | archive]

In this process every checksum is the same number, as it would be for an attacker who computes them
anew. So each damaged byte gets as far as it can. Any error of ours is right; a foreign error, a
hang or the end of the process is a bug. What is being tried stays in FOLDER.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import struct
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xxhash

SUM = 0x1234567


class ConstantSum:
    """A hasher whose every digest is the same."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def update(self, data: Any) -> None:
        """Forget the data."""

    def intdigest(self) -> int:
        """Return the one number."""
        return SUM

    def digest(self) -> bytes:
        """Return it as bytes."""
        return SUM.to_bytes(8, "big")


for _name in ("xxh3_64_intdigest", "xxh64_intdigest"):
    setattr(xxhash, _name, lambda *_, **__: SUM)
for _name in ("xxh3_128_digest", "xxh128_digest"):
    setattr(xxhash, _name, lambda *_, **__: SUM.to_bytes(16, "big"))
for _name in ("xxh3_64", "xxh64", "xxh3_128", "xxh128"):
    setattr(xxhash, _name, ConstantSum)
zlib.crc32 = lambda data, value=0: SUM  # type: ignore[assignment]

import numpy as np  # noqa: E402

from memories import MemoriesError, MemoryManager  # noqa: E402
from memories.snapshot import checksum  # noqa: E402

for _name in [name for name in vars(checksum) if "crc" in name.lower() and name[0] != "_"]:
    setattr(checksum, _name, lambda *_, **__: SUM)

MAX_SECONDS = 40
MAX_BYTES = 8 << 30
NUMBERS = (0, 1, 2**31 - 1, 2**32 - 1, 2**62, 2**63, 2**64 - 1)
VALUES: dict[str, Any] = {
    "text": "text" * 20,
    "list": [1, 2.5, "three", None, {"four": (5, b"six")}],
    "array": np.arange(300.0).reshape(20, 15),
    "large": np.arange(200_000.0),
    "set": {1, 2, 3},
    "bytes": bytes(5000),
}


def manager_in(folder: Path, **options: Any) -> MemoryManager:
    """Open a manager on a store."""
    options = {"storage_path": folder, "migration": False, **options}
    return MemoryManager("20 MB", "20 MB", "200 MB", **options)


def make(folder: Path, what: str) -> None:
    """Write what is to be damaged."""
    options = {"glacier_memory_enabled": True} if what == "archive" else {}
    tier = "glacier" if what == "archive" else "cold"
    with manager_in(folder / "store", **options) as manager:
        for number in range(3):
            for name, value in VALUES.items():
                manager.store(f"{name}{number}", value, tier, metadata={"n": number})
        manager.delete("text0")
        if what == "snapshot":
            manager.create_snapshot(folder / "snapshot")
    if what == "snapshot":
        shutil.rmtree(folder / "store")


def use(folder: Path, what: str) -> None:
    """Open, list, read, change, check and close."""
    options: dict[str, Any] = {}
    if what == "archive":
        options = {"glacier_memory_enabled": True}
    steps: list[Callable[[MemoryManager], Any]] = [
        lambda manager: (
            manager.restore_snapshot(folder / "snapshot") if what == "snapshot" else None
        ),
        lambda manager: list(manager),
        lambda manager: [(manager.info(key), manager.explain(key)) for key in list(manager)],
        lambda manager: manager.find(n=1),
        lambda manager: manager.retrieve_many([f"{name}1" for name in VALUES]),
        lambda manager: manager.store("new", "value"),
        lambda manager: manager.store("new in cold", "value", "cold"),
        lambda manager: manager.delete("list1"),
        lambda manager: manager.migrate("array2", "hot"),
        lambda manager: manager.check(),
        lambda manager: manager.stats(),
    ]
    for name in VALUES:
        for number in range(3):
            steps.append(lambda manager, key=f"{name}{number}": manager.retrieve(key))
    manager = manager_in(folder / "store", **options)
    try:
        for step in steps:
            with contextlib.suppress(MemoriesError):
                step(manager)
    finally:
        manager.cleanup()


def damage(folder: Path, rng: random.Random) -> None:
    """Change numbers and bytes of one file, or its length."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 16]
    files = [path for path in files if path.suffix not in (".db", ".sqlite")]
    path = rng.choice(files)
    data = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 4)):
        if len(data) < 16:
            break
        # Heads, tables and ends matter more than what values hold.
        near = rng.choice([256, 4096, len(data)])
        at = rng.randrange(min(near, len(data)))
        at = at if rng.random() < 0.5 else len(data) - 1 - at
        kind = rng.random()
        if kind < 0.5:
            data[at] = rng.randrange(256)
        elif kind < 0.8:
            number = rng.choice([*NUMBERS, rng.randrange(len(data))])
            struct.pack_into("<Q", data, max(0, min(at // 8 * 8, len(data) - 8)), number)
        elif kind < 0.95:
            piece = data[rng.randrange(len(data)) :][: rng.choice([4, 8, 64])]
            data[at : at + len(piece)] = piece[: len(data) - at]
        else:
            del data[at:]
    path.chmod(0o600)
    path.write_bytes(data)


def too_slow(*_: object) -> None:
    """Raise what nothing in the package catches."""
    raise TimeoutError(f"an input took more than {MAX_SECONDS} seconds")


def main(seed: int, seconds: float, folder: Path, whats: list[str]) -> None:
    """Try damaged copies for so many seconds."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    os.environ["MEMORIES_KEY_FILE"] = str(folder / "keys")
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, too_slow)
    rng, tried, opened = random.Random(seed), 0, 0
    for what in whats:
        if not (folder / what).exists():
            make(folder / what, what)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        what = rng.choice(whats)
        copy = folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder / what, copy)
        damage(copy, rng)
        tried += 1
        signal.alarm(MAX_SECONDS)
        try:
            use(copy, what)
            opened += 1
        except MemoriesError:
            continue
        finally:
            signal.alarm(0)
    shutil.rmtree(folder / "copy", ignore_errors=True)
    print(f"{tried} tried, {opened} could be opened and closed")


if __name__ == "__main__":
    main(
        int(sys.argv[1]),
        float(sys.argv[2]),
        Path(sys.argv[3]),
        sys.argv[4:] or ["cold", "snapshot", "archive"],
    )
