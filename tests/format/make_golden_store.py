"""Writes a golden store: all files of one, as the release on the path writes them.

    PYTHONPATH=src python tests/format/make_golden_store.py 0.1.0

Run it once for each release, before it is published, and never again. It runs with the releases
before 0.1.0, too.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

STORES = Path(__file__).parent / "golden_stores"
LEFT_OUT = ("LOCK", "RESERVE", "telemetry.json")  # Of the process and of the machine.
TERMS: dict[str, Any] = {"metadata": {"city": "Ulm", "year": 2026}, "pin": True}


def values() -> dict[str, Any]:
    """Return what is stored."""
    block = np.frombuffer(random.Random(5).randbytes(75_000), "u1")
    return {
        "array": np.arange(24, dtype="<f4").reshape(4, 6),
        "in/a/file": np.tile(block, 16).reshape(1000, 1200),  # More than 1 MiB, also compressed.
        "smooth": np.arange(40_000, dtype="<i4").reshape(200, 200) // 7,
        "text": "gölden",
        "bytes": b"golden" * 1000,
        "plain": {"a": [1, 2.5, None, True], "b": (1, "x")},
        "state": {"w": np.ones((2, 3)), "step": 7, (1, 2): {3, 4}},
        "pickled": complex,
        "a/%/../é": 5,
    }


def small() -> dict[str, int]:
    """Return small values: half were stored twice, and those between them were removed."""
    return {f"small/{n:03d}": -n if n % 3 == 1 else n for n in range(200) if n % 3}


def write(place: Path) -> None:
    """Write a store with a cold tier and an archive, a snapshot of it, and the keys that signed."""
    from memories import MemoryManager

    compression = {"cold": "lz4", "glacier": "zstd:3"}
    with MemoryManager(
        1, 1, 5, glacier_memory_enabled=True, storage_path=place / "store", compression=compression
    ) as manager:
        for n in range(200):
            manager.store(f"small/{n:03d}", n, tier="cold")
        for n in range(0, 200, 3):
            manager.delete(f"small/{n:03d}")
        for n in range(1, 200, 3):
            manager.store(f"small/{n:03d}", -n, tier="cold")
        for key, value in values().items():
            manager.store(key, value, tier="cold")
            manager.store("archived/" + key, value, tier="glacier")
        manager.store("terms", 1, tier="cold", **TERMS)
        manager.create_snapshot(place / "snapshot")
    shutil.copy(Path(os.environ["HOME"], "memories", "keys"), place / "keys")


def main(name: str) -> None:
    """Write the golden store of one release, unless it is there."""
    target = STORES / f"{name}.tar.xz"
    assert not target.exists(), f"{target} is there, and a golden file never changes"
    with tempfile.TemporaryDirectory() as directory:
        socket.gethostname = lambda: "golden"  # The lease of an archive names the host.
        os.environ["HOME"] = os.environ["XDG_CONFIG_HOME"] = directory
        place = Path(directory) / "place"
        place.mkdir()
        write(place)
        STORES.mkdir(exist_ok=True)
        with tarfile.open(target, "w:xz", preset=9) as archive:
            for path in sorted(place.rglob("*")):
                if path.name not in LEFT_OUT:
                    archive.add(path, str(path.relative_to(place)), False, filter=_anonymous)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out who wrote a file, and when."""
    member.uid = member.gid = 0
    member.mtime, member.uname, member.gname = 0, "", ""
    return member


if __name__ == "__main__":
    main(sys.argv[1])
