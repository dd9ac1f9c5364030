"""Promise 8, what reading imports: exactly what SECURITY.md says, each case in a fresh process."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.frames.test_signing import forged

from memories import MemoryManager
from memories.codecs.registry import FAMILIES
from memories.engine.payload import Payload
from memories.model.record import Terms
from memories.model.tiers import TierName

SECURITY = Path(__file__).resolve().parents[2] / "SECURITY.md"
UNKNOWN = """
import sys
sys.path.insert(0, sys.argv[1])
from memories import UnsupportedTypeError
from memories.codecs import registry
try:
    registry.codec_named("planted_module.codec")
except UnsupportedTypeError:
    print("unknown", "planted_module" in sys.modules)
print(registry.codec_named("outside.thing").name)
"""
OUTSIDE = """
from memories import register_codec
class Thing: ...
def register():
    print("called")
    register_codec(Thing, name="outside.thing", encode=vars, decode=lambda parts: Thing())
"""


def run(code: str, argument: Path) -> list[str]:
    """Return the lines that a fresh interpreter prints."""
    command = [sys.executable, "-c", code, str(argument)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert 0 == done.returncode, done.stderr
    return done.stdout.splitlines()


def test_reading_a_table_imports_the_installed_pandas(tmp_path: Path) -> None:
    """SECURITY.md must not promise more than happens."""
    pandas = pytest.importorskip("pandas")
    with MemoryManager(1, 1, 1, storage_path=tmp_path) as manager:
        manager.store("table", pandas.DataFrame({"a": [1, 2]}), "cold")
    code = (
        "import sys\nfrom memories import MemoryManager\n"
        "with MemoryManager(1, 1, 1, storage_path=sys.argv[1], read_only=True) as manager:\n"
        "    print('pandas' in sys.modules)\n"
        "    manager['table']\n"
        "    print('pandas' in sys.modules)\n"
    )
    assert ["False", "True"] == run(code, tmp_path)


def test_an_unknown_codec_calls_the_entry_points_once_and_imports_no_name_from_the_data(
    tmp_path: Path,
) -> None:
    """The data choose no module: a name that is not registered is only not found."""
    metadata = tmp_path / "outside-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[memories.codecs]\noutside = outside_codecs:register\n"
    )
    (tmp_path / "outside_codecs.py").write_text(OUTSIDE)
    (tmp_path / "planted_module.py").write_text("print('planted code ran')")
    assert ["called", "unknown False", "outside.thing"] == run(UNKNOWN, tmp_path)


SHADOWS = """
import sys
from memories import MemoriesError, MemoryManager
with MemoryManager(storage_path=sys.argv[1], migration=False) as manager:
    for key in ("k", "table", "compressed"):
        try:
            print(key, type(manager.retrieve(key)).__name__)
        except MemoriesError as error:
            print(key, type(error).__name__, "import it in your program first" in str(error))
"""
NAMES = ("jax", "pandas", "numcodecs", "pyarrow")


@pytest.mark.parametrize("how", ["-c", "-m", "script"])
def test_no_file_of_the_current_directory_is_imported(tmp_path: Path, how: str) -> None:
    """A frame says that it needs jax: `jax.py` beside it may have the same author."""
    store, folder = tmp_path / "store", tmp_path / "folder"
    pandas = pytest.importorskip("pandas")
    options = {"storage_path": store, "migration": False, "compression": {"cold": "lz4"}}
    with MemoryManager(**options) as manager:
        array = forged("jax.array", {"dtype": "<f8", "shape": [1], "order": "C"}, bytes(8))
        payload = Payload.of_frame(memoryview(array).toreadonly(), key="k")
        manager._hierarchy.put("k", payload, tier=TierName.COLD, terms=Terms())
        manager.store("table", pandas.DataFrame({"a": [1, 2]}), "cold")
        manager.store("compressed", bytes(100_000), "cold")
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text("print('planted code ran')")
    (folder / "program.py").write_text(SHADOWS)
    command = {"-c": ["-c", SHADOWS], "-m": ["-m", "program"], "script": ["program.py"]}[how]
    got = subprocess.run(
        [sys.executable, *command, str(store)],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    expected = [f"{key} BrokenPackageError True" for key in ("k", "table", "compressed")]
    assert expected == got.stdout.splitlines(), got.stderr
    for name in NAMES:
        (folder / f"{name}.py").unlink()
    again = subprocess.run(
        [sys.executable, *command, str(store)],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ["table DataFrame", "compressed bytes"] == again.stdout.splitlines()[1:], again.stderr


def test_what_the_program_imported_itself_is_used(tmp_path: Path) -> None:
    """The program of a user may shadow a package on purpose."""
    (tmp_path / "odd_package.py").write_text("WORD = 'mine'")
    code = (
        "from memories.foundation.optional_imports import package\n"
        "import odd_package\nprint(package('odd_package').WORD)"
    )
    got = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "mine" == got.stdout.strip()


def test_the_packages_that_reading_may_import_are_those_in_the_security_document() -> None:
    """A list in prose is true only while something compares it with the code."""
    text = SECURITY.read_text("utf-8")
    sentence = text.partition("packages with codecs:")[2].partition(".")[0]
    named = set(re.findall(r"\w+", sentence)) - {"and"}
    parts = {"jaxlib", "_duckdb"}  # Of jax and of duckdb.
    assert set(FAMILIES) - parts == named
