"""Damaged parts of values are decoded and used: never the end of the process."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = float(os.environ.get("MEMORIES_FUZZ_SECONDS", "600"))
FUZZER = Path(__file__).with_name("fuzz_use.py")
FAMILIES = ("numpy", "scipy", "pandas", "xarray", "pyarrow", "polars")
# Families of several packages.
LARGER = {
    "geo": ("geopandas", "rasterio"),
    "image": ("PIL",),
    "capsule": ("arro3", "nanoarrow"),
    "sparse": ("sparse",),
}


def fuzz(tmp_path: Path, seed: int, seconds: float, family: str) -> None:
    """Run the fuzzer in a process of its own, which may end in any way."""
    for package in LARGER.get(family, (family,)):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")
    kept = tmp_path / "last"
    command = [sys.executable, str(FUZZER), str(seed), str(seconds), str(kept), family]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds + 300, check=False
    )
    assert 0 == done.returncode, f"{kept} ends with {done.returncode}: {done.stderr[-4000:]}"
    assert " were values" in done.stdout


@pytest.mark.parametrize("family", FAMILIES)
def test_a_few_seconds_of_use_end_no_process(tmp_path: Path, family: str) -> None:
    """The long campaigns in short, with the same seed each time."""
    fuzz(tmp_path, 20261130, 2.0, family)


@pytest.mark.torture
@pytest.mark.parametrize("family", (*FAMILIES, *LARGER))
def test_minutes_of_use_end_no_process(tmp_path: Path, family: str) -> None:
    """Other inputs at each run."""
    fuzz(tmp_path, int.from_bytes(os.urandom(4), "little"), SECONDS, family)
