"""The compiled core: it runs only where it was made of the very sources that are there."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import memories
from memories import compiled

PACKAGE = Path(memories.__file__).parent
ENTRY = "model/entry.py"
REPORT = """
import memories.model.entry
from memories import MemoryManager
from memories.compiled import core
with MemoryManager(0.001, 0.001, 0.001) as manager:
    manager.store("a", b"x")
    print(core(), memories.model.entry.__file__, repr(manager._hierarchy.catalog.entries["a"]))
"""


def tree(root: Path) -> Path:
    """Return a copy of the sources, and of what was compiled from them."""
    copy = root / "src" / "memories"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", ".making-*"))
    return copy


def report(package: Path, **environment: str) -> str:
    """Return what a process says that imports this copy of the package."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", REPORT],
        env=os.environ
        | {"PYTHONPATH": str(package.parent), "MEMORIES_INTERPRETED": ""}
        | environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert 0 == run.returncode, run.stderr
    return run.stdout


def compile_in(package: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the compilation in a copy of the repository."""
    root = package.parent.parent
    shutil.copy(PACKAGE.parent.parent / "compile_core.py", root)
    return subprocess.run(
        [sys.executable, root / "compile_core.py"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=280,
    )


@pytest.fixture
def built() -> Path:
    """Return the folder of the compiled core; skip where there is none."""
    folder = compiled.folder_of(PACKAGE)
    if not folder.is_dir():
        pytest.skip("the core is not compiled here")
    return folder


def test_a_copy_runs_what_was_compiled_from_it(built: Path, tmp_path: Path) -> None:
    """Several working trees share one environment: each runs its own files."""
    said = report(tree(tmp_path))
    assert said.startswith("compiled ")
    assert str(tmp_path / "src" / "memories" / compiled.FOLDER / built.name) in said


def test_an_edited_source_is_not_shadowed(built: Path, tmp_path: Path) -> None:
    """Otherwise old code runs, and an edit of the file has no effect."""
    package = tree(tmp_path)
    text = (package / ENTRY).read_text()
    (package / ENTRY).write_text(
        text.replace("{type(self).__name__} {self.key", "EDITED {self.key")
    )
    said = report(package)
    assert said.startswith("interpreted (compiled from other sources) ")
    assert "<EDITED 'a'" in said
    (package / ENTRY).write_text(text)
    assert report(package).startswith("compiled ")


def test_the_environment_chooses_the_sources(tmp_path: Path) -> None:
    """This is how the tests run both ways, and how a doubt about the compiler is settled."""
    said = report(PACKAGE, MEMORIES_INTERPRETED="1")
    assert said.startswith("interpreted (MEMORIES_INTERPRETED is set) ")
    assert str(PACKAGE / ENTRY) in said


def test_files_that_cannot_be_loaded_are_left_alone(tmp_path: Path) -> None:
    """A directory may be shared with a machine whose C library is older."""
    package = tree(tmp_path)
    shutil.rmtree(package / compiled.FOLDER, ignore_errors=True)
    assert report(package).startswith("interpreted (not compiled) ")
    folder = compiled.folder_of(package)
    library = folder / f"core__mypyc{folder.suffix}.so"
    folder.mkdir(parents=True)
    library.write_text("not a library")
    assert report(package).startswith("interpreted (compiled, and cannot be loaded: ")


def test_without_a_compiler_the_core_runs_interpreted(tmp_path: Path) -> None:
    """A missing compiler never fails an installation."""
    package = tree(tmp_path)
    shutil.rmtree(package / compiled.FOLDER, ignore_errors=True)
    run = compile_in(package, PATH=str(tmp_path))
    assert 0 == run.returncode
    assert run.stdout.startswith("the core runs interpreted: no C compiler was found")
    assert not (package / compiled.FOLDER).exists()
    assert report(package).startswith("interpreted (not compiled) ")


def test_what_is_compiled_already_is_not_compiled_again(built: Path, tmp_path: Path) -> None:
    """Every `make test` asks, so that it must cost nothing: no compiler is needed for it."""
    run = compile_in(tree(tmp_path), PATH=str(tmp_path))
    assert (0, "") == (run.returncode, run.stdout)


def test_the_compiler_copies_no_value_of_another_module() -> None:
    """What is `Final` elsewhere would stay as it was, while that module is edited."""
    finals = {name: set(_finals(compiled.source_of(PACKAGE, name))) for name in _imported_by_core()}
    for module in compiled.MODULES:
        for origin, name in _imports(compiled.source_of(PACKAGE, module)):
            assert name not in finals.get(origin, ()), f"{module} imports {name} from {origin}"


def _imported_by_core() -> set[str]:
    every = {
        origin
        for module in compiled.MODULES
        for origin, _ in _imports(compiled.source_of(PACKAGE, module))
    }
    return {
        origin
        for origin in every - set(compiled.MODULES)
        if origin.startswith("memories.") and compiled.source_of(PACKAGE, origin).is_file()
    }


def _imports(source: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)


def _finals(source: Path) -> Iterator[str]:
    for node in ast.parse(source.read_text()).body:
        literal = isinstance(node, ast.AnnAssign) and not isinstance(node.value, ast.Call)
        if literal and "Final" in ast.unparse(node.annotation):
            yield ast.unparse(node.target)


def trees() -> Iterator[tuple[str, ast.Module]]:
    for module in compiled.MODULES:
        yield module, ast.parse(compiled.source_of(PACKAGE, module).read_text())


def test_no_compiled_generator_has_work_to_do_at_its_end() -> None:
    """It does not run when the generator is dropped: expired keys were forgotten that way."""
    for module, parsed in trees():
        blocks = [node for node in ast.walk(parsed) if isinstance(node, ast.Try | ast.With)]
        inside = [node for block in blocks for node in ast.walk(block)]
        assert not [n.lineno for n in inside if isinstance(n, ast.Yield | ast.YieldFrom)], module


def test_no_compiled_class_extends_one_that_is_not_compiled() -> None:
    """One that extended a weak reference crashed the collector of garbage."""
    own = {
        node.name for _, parsed in trees() for node in parsed.body if isinstance(node, ast.ClassDef)
    }
    for module, parsed in trees():
        for node in ast.walk(parsed):
            if not isinstance(node, ast.ClassDef):
                continue
            marks = [ast.unparse(mark) for mark in node.decorator_list]
            foreign = {ast.unparse(base) for base in node.bases} - own - {"Protocol"}
            assert not foreign or "mypyc_attr(native_class=False)" in marks, (module, node.name)
