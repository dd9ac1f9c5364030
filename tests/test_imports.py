"""`import memories` must stay cheap: what it loads is listed, how long it takes is a benchmark."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LATER = {
    "asyncio",
    "boto3",
    "click",
    "concurrent.futures.process",
    "cupy",
    "dask",
    "h5py",
    "isal",
    "jax",
    "matplotlib",
    "multiprocessing",
    "numcodecs",
    "obstore",
    "pandas",
    "platformdirs",
    "polars",
    "pyarrow",
    "redis",
    "rich",
    "scipy",
    "sqlite3",
    "starlette",
    "torch",
    "xarray",
    "zarr",
}
USE = """
import memories, numpy
with memories.MemoryManager(0.001, 0.001, 0.001) as manager:
    for tier in ("hot", "warm"):
        manager.store("a", numpy.arange(10), tier=tier)
        manager.retrieve("a")
"""


def loaded_by(code: str) -> set[str]:
    """Return the names in `sys.modules` of a fresh interpreter that ran `code`."""
    program = f"{code}\nimport sys\nprint(*sys.modules, sep='\\n')"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=240, check=True
    )
    return set(run.stdout.split())


def test_importing_loads_no_codec_index_event_loop_or_terminal_package() -> None:
    """A script that only imports the package pays for none of what it may never use."""
    baseline = loaded_by("import numpy")
    assert set() == (loaded_by("import memories") - baseline) & LATER


def test_importing_starts_no_thread_and_touches_no_file() -> None:
    """An import has no effect that a later fork or a read-only home would notice."""
    code = (
        "import sys, threading\n"
        "opened = []\n"
        "def watch(event, args):\n"
        "    if event == 'open' and isinstance(args[1], str) and set(args[1]) & set('wax+'):\n"
        "        opened.append(args[0])\n"
        "sys.dont_write_bytecode = True\n"
        "sys.addaudithook(watch)\n"
        "import memories\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "assert not opened, opened\n"
    )
    loaded_by(code)


def test_the_volatile_tiers_work_without_any_optional_package() -> None:
    """A program that keeps arrays in RAM never waits for a compressor or a terminal library."""
    never = LATER & {"matplotlib", "rich", "obstore", "pandas", "pyarrow", "asyncio", "click"}
    baseline = loaded_by("import numpy")
    assert set() == (loaded_by(USE) - baseline) & never


def test_an_array_goes_to_the_disk_and_back_without_what_others_need() -> None:
    """A short program that opens a store would wait for these longer than for its values."""
    code = (
        "import memories, numpy\n"
        "with memories.MemoryManager(0.001, 0.001, 0.1, compression={'cold': 'lz4'}) as manager:\n"
        "    manager.store('a', numpy.zeros(1_000_000), tier='cold')\n"
        "    assert manager.get_tier('a') == 'cold'\n"
        "    manager.retrieve('a')\n"
    )
    others = {"csv", "difflib", "hashlib", "hmac", "numcodecs", "numpy.ma", "secrets"}
    assert set() == (loaded_by(code) - loaded_by("import numpy")) & others


def test_a_masked_array_is_read_where_nothing_imported_their_module(tmp_path: Path) -> None:
    """NumPy imports it at its first use, which may be the reading."""
    head = f"import memories\nwith memories.MemoryManager(1, 1, 1, storage_path={str(tmp_path)!r})"
    loaded_by(
        f"{head} as m:\n import numpy\n"
        " m.store('a', numpy.ma.masked_array([1, 2], [True, False]), tier='cold')"
    )
    loaded_by(f"{head} as m:\n value = m.retrieve('a')\n assert value.sum() == 2, value")


def test_the_class_of_the_manager_comes_without_what_a_manager_needs() -> None:
    """Many programs import it for a type or for workers, and make a manager late or never."""
    loaded = loaded_by("from memories import MemoryManager") - loaded_by("import numpy")
    late = {"hashlib", "hmac", "tempfile", "zipfile", "json", "random", "difflib", "sqlite3"}
    rooms = ("backends.disk", "migration", "observe", "snapshot", "simulate", "cluster", "cli")
    ours = {name for name in loaded if name.startswith(tuple(f"memories.{one}" for one in rooms))}
    assert set() == ours
    assert set() == loaded & late
    assert "memories.core.memoize" not in loaded and "memories.policies.auto" not in loaded


def test_the_import_on_windows_says_what_to_use() -> None:
    """Before a module is missed."""
    code = "import sys; sys.platform = 'win32'; import memories"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert "ImportError: memories does not run on Windows" in run.stderr
    assert "WSL 2" in run.stderr
