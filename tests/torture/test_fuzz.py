"""Every reader gets damaged bytes: an error of ours or a value, soon, and never the end."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.torture.fuzz.run import TARGETS

SECONDS = float(os.environ.get("MEMORIES_FUZZ_SECONDS", "600"))
FUZZER = Path(__file__).parent / "fuzz" / "run.py"
# What a target needs; those with a long list of packages are for the campaigns only.
PACKAGES = {name: (name,) for name in ("numpy", "scipy", "pandas", "xarray", "pyarrow", "polars")}
LARGER = {
    "geo": ("geopandas", "rasterio"),
    "image": ("PIL",),
    "capsule": ("arro3", "nanoarrow"),
    "sparse": ("sparse",),
}
SEALED = {name: ("cryptography",) for name in TARGETS if name.startswith("sealed-")}
# What has other tests in short: each of its bytes is authenticated.
CAMPAIGNS = ("sealed-cold", "sealed-snapshot", "sealed-map", "sealed-keys")


def fuzz(tmp_path: Path, seed: int, seconds: float, name: str) -> None:
    """Run the fuzzer in a process of its own, which may end in any way."""
    for package in (PACKAGES | LARGER | SEALED).get(name, ()):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")
    command = [sys.executable, str(FUZZER), name, str(seed), str(seconds), str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds + 300, check=False
    )
    where = f"{tmp_path / 'input'} ends with {done.returncode}"
    assert 0 == done.returncode, f"{where}: {done.stderr[-4000:]}"
    assert " tried" in done.stdout


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in (*LARGER, *CAMPAIGNS)])
def test_a_moment_of_damage_ends_no_process(tmp_path: Path, name: str) -> None:
    """The long campaigns in short, with the same seed each time; and what was a bug once."""
    fuzz(tmp_path, 20261130, 0.5, name)


@pytest.mark.torture
@pytest.mark.parametrize("name", TARGETS)
def test_minutes_of_damage_end_no_process(tmp_path: Path, name: str) -> None:
    """Other inputs at each run."""
    fuzz(tmp_path, int.from_bytes(os.urandom(4), "little"), SECONDS, name)
