"""What counts as a package that is not installed; real modules, on a path of their own."""

from __future__ import annotations

import ctypes
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from memories.foundation.optional_imports import (
    BrokenPackageError,
    MissingPackageError,
    install_command,
    package,
    require,
    require_library,
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a folder that modules are imported from, and forget them again."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("odd_")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["no_such_package", "no_such_package.part", "json.no_such_part"])
def test_what_is_not_there_is_not_installed(name: str) -> None:
    """A whole package, a part of one, or a part that a version does not have."""
    with pytest.raises(MissingPackageError, match="pip install"):
        require(name, extra="all")
    with pytest.raises(MissingPackageError, match="pip install"):
        package(name)


def test_the_command_names_the_packages_of_the_extra() -> None:
    """It works wherever this package came from: an index, a clone, a wheel."""
    assert re.fullmatch(r"pip install 'rich>=[0-9.]+'", install_command("rich.console", "terminal"))
    assert install_command("uvicorn", "dashboard").startswith("pip install 'starlette>=")
    assert "pip install torch" == install_command("torch.cuda", "no such extra")
    with pytest.raises(MissingPackageError, match=r"run: pip install 'rich>=[0-9.]+'$"):
        require("rich_is_not_there", extra="terminal")


@pytest.mark.parametrize(
    "code",
    [
        "raise ImportError('libodd.so: failed to map segment from shared object')",
        "raise ImportError('libodd.so: cannot allocate memory', name='odd_package')",
        "import odd_package_needs_this",
        "from odd_package import nothing",
        "raise ModuleNotFoundError('nameless')",
        "raise SystemError('error return without exception set')",
        "raise RuntimeError('no driver')",
    ],
)
def test_what_fails_otherwise_is_not_called_missing(folder: Path, code: str) -> None:
    """The advice to install an installed package would mislead a user who is short of memory."""
    (folder / "odd_package").mkdir()
    (folder / "odd_package" / "__init__.py").write_text("")
    (folder / "odd_package" / "part.py").write_text(code)
    importlib.invalidate_caches()
    for call in (
        lambda: require("odd_package.part", extra="all"),
        lambda: package("odd_package.part"),
    ):
        with pytest.raises(BrokenPackageError, match=r"odd_package\.part is installed") as caught:
            call()
        assert caught.value.__cause__ is not None
    (folder / "odd_package" / "part.py").write_text("ready = True  # There is memory again.")
    importlib.invalidate_caches()
    assert require("odd_package.part", extra="all").ready


def test_memory_that_is_short_stays_that(folder: Path) -> None:
    """A `MemoryError` says what it is."""
    (folder / "odd_hungry.py").write_text("raise MemoryError('no room')")
    importlib.invalidate_caches()
    with pytest.raises(MemoryError, match="no room"):
        require("odd_hungry", extra="all")


def test_a_library_is_loaded_without_its_package(folder: Path) -> None:
    """To import all of `numcodecs` takes longer than to read a hundred megabytes."""
    code = (
        "import ctypes, sys\n"
        "from memories.foundation.optional_imports import require_library\n"
        "library = require_library('numcodecs.blosc', ctypes.CDLL, extra='all')\n"
        "print(bool(library.blosc_compress_ctx), 'numcodecs' in sys.modules)"
    )
    got = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert ["True", "False"] == got.stdout.split()


@pytest.mark.parametrize("name", ["no_such_package.part", "json.no_such_part"])
def test_a_library_that_is_not_there_is_not_installed(name: str) -> None:
    """As for a package that is imported."""
    with pytest.raises(MissingPackageError, match="pip install"):
        require_library(name, ctypes.CDLL, extra="all")


def test_a_library_that_cannot_be_loaded_is_broken(folder: Path) -> None:
    """The file is there, but is cut short, or memory is."""
    (folder / "odd_library").mkdir()
    (folder / "odd_library" / "__init__.py").write_text("")
    (folder / "odd_library" / f"part{EXTENSION_SUFFIXES[0]}").write_bytes(b"\x7fELF")
    importlib.invalidate_caches()
    with pytest.raises(BrokenPackageError, match=r"odd_library\.part is installed"):
        require_library("odd_library.part", ctypes.CDLL, extra="all")
