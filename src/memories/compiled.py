"""Chooses between the compiled and the interpreted modules of the core.

The modules on the path of a store, a hit and a small frame are ordinary Python that mypyc can
compile. The compiled ones lie in a folder that is named after the sources they were made of, so
that an edited source runs interpreted, and is never shadowed by what was compiled before.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from pathlib import Path
    from types import ModuleType

    from mypy_extensions import mypyc_attr as mypyc_attr
else:

    def mypyc_attr(**options):
        """Return a decorator that changes nothing: the compiler reads the one of this name."""
        return lambda cls: cls


# What is compiled. Each module gains at least half of its speed again. None of them may import a
# `Final` from a module that is not here: the compiler would copy its value. None may yield within
# `try` or `with`: the end of a compiled generator does not run when it is dropped early. None may
# extend a class that is not compiled, unless as `mypyc_attr(native_class=False)`: that crashes.
MODULES: Final = (
    "memories.backends.disk.many_records",
    "memories.backends.disk.run_table",
    "memories.backends.disk.small_reads",
    "memories.codecs.content_hash",
    "memories.codecs.digests",
    "memories.codecs.part_hash",
    "memories.codecs.plain",
    "memories.codecs.plain_hash",
    "memories.codecs.private_copy",
    "memories.core.short_ways",
    "memories.engine.budget",
    "memories.engine.cold_reader",
    "memories.engine.entry_table",
    "memories.engine.front_cache",
    "memories.engine.hit_counter",
    "memories.engine.keylocks",
    "memories.engine.newcomers",
    "memories.engine.residency",
    "memories.engine.settlement",
    "memories.engine.small_entries",
    "memories.foundation.keys",
    "memories.frames.single_array",
    "memories.frames.single_buffer",
    "memories.frames.small_front",
    "memories.model.entry",
)
LIBRARY: Final = "memories.core__mypyc"  # The code of all of them, to which a file for each leads.
FOLDER: Final = "__compiled__"
INTERPRETED: Final = "MEMORIES_INTERPRETED"  # 1 in the environment: run the sources everywhere.


class Core(NamedTuple):
    """How the core runs in this process."""

    compiled: bool
    reason: str  # Why it is interpreted, and where it is compiled the folder of the files.

    def __str__(self) -> str:
        return "compiled" if self.compiled else f"interpreted ({self.reason})"


def source_of(package: Path, module: str) -> Path:
    """Return the source file of a module; `package` is the folder of `memories`."""
    return package.joinpath(*module.split(".")[1:]).with_suffix(".py")


def folder_of(package: Path) -> Path:
    """Return where this interpreter finds what was compiled from the sources in `package`.

    Raises:
        OSError: a source cannot be read.
    """
    from importlib.util import source_hash
    from sysconfig import get_config_var

    sums = [source_hash(source_of(package, module).read_bytes()) for module in MODULES]
    total = source_hash(b"".join([*sums, *map(str.encode, MODULES)]))
    return package / FOLDER / f"{total.hex()}.{get_config_var('SOABI')}"


class CompiledFinder:
    """Finds the modules of the core in their folder; it looks when the first one is imported."""

    def __init__(self) -> None:
        self._core: Core | None = None

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a compiled module is; None for all others, and where the source is run."""
        if name not in MODULES or not self.core().compiled:
            return None
        return _spec(name, self.core().reason)

    def core(self) -> Core:
        """Return how the core runs."""
        if self._core is None:
            self._core = _choose()
        return self._core


def _choose() -> Core:
    """Decide how the core runs; load what was compiled, if it is to run."""
    from pathlib import Path

    if os.environ.get(INTERPRETED, "0") not in ("", "0"):
        return Core(False, f"{INTERPRETED} is set")
    try:
        folder = folder_of(Path(__file__).parent)
    except OSError as error:
        return Core(False, f"a source cannot be read: {error}")
    if not folder.is_dir():
        others = folder.parent.is_dir() and any(folder.parent.glob(f"*{folder.suffix}"))
        return Core(False, "compiled from other sources" if others else "not compiled")
    try:
        _load(str(folder))
    except ImportError as error:  # It needs a newer C library than is here, for example.
        return Core(False, f"compiled, and cannot be loaded: {error}")
    return Core(True, str(folder))


def _spec(name: str, folder: str) -> ModuleSpec:
    from importlib.machinery import EXTENSION_SUFFIXES
    from importlib.util import spec_from_file_location

    file = os.path.join(folder, *name.split(".")[1:]) + EXTENSION_SUFFIXES[0]  # noqa: PTH118
    spec = spec_from_file_location(name, file)
    assert spec is not None
    return spec


def _load(folder: str) -> None:
    """Load the library that all modules of the core use, under its name.

    Raises:
        ImportError: it is not there, or does not fit to this machine.
    """
    from importlib.util import module_from_spec

    spec = _spec(LIBRARY, folder)
    library = module_from_spec(spec)
    assert spec.loader is not None
    sys.modules[LIBRARY] = library
    try:
        spec.loader.exec_module(library)
    except BaseException:
        sys.modules.pop(LIBRARY, None)
        raise


_finder = CompiledFinder()


def install() -> None:
    """Let `import` find the compiled modules, from now on and in this process."""
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def core() -> Core:
    """Return how the core runs in this process."""
    return _finder.core()
