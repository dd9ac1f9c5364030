"""Damaged stores, snapshots and archives whose checksums hold are opened, read, changed, closed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = float(os.environ.get("MEMORIES_FUZZ_SECONDS", "600"))
FUZZER = Path(__file__).with_name("fuzz_readers.py")
READERS = ("cold", "snapshot", "archive")


def fuzz(tmp_path: Path, seed: int, seconds: float, what: str) -> None:
    """Run the fuzzer in a process of its own, in which no checksum says anything."""
    command = [sys.executable, str(FUZZER), str(seed), str(seconds), str(tmp_path), what]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds + 300, check=False
    )
    where = f"{tmp_path / 'copy'} ends with {done.returncode}"
    assert 0 == done.returncode, f"{where}: {done.stderr[-4000:]}"
    assert " tried" in done.stdout


@pytest.mark.parametrize("what", READERS)
def test_a_few_damaged_files_give_errors_of_ours(tmp_path: Path, what: str) -> None:
    """The long campaigns in short, with the same seed each time."""
    fuzz(tmp_path, 20261130, 3.0, what)


@pytest.mark.torture
@pytest.mark.parametrize("what", READERS)
def test_many_damaged_files_give_errors_of_ours(tmp_path: Path, what: str) -> None:
    """Other inputs at each run."""
    fuzz(tmp_path, int.from_bytes(os.urandom(4), "little"), SECONDS, what)
