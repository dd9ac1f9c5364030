"""Compiles the core of the package with mypyc, for the interpreter that runs this file.

`python compile_core.py` puts it beside the sources, where `memories` looks for it. Without a C
compiler it says so and changes nothing: the same sources then run interpreted.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec, module_from_spec, spec_from_loader
from pathlib import Path
from time import monotonic
from types import ModuleType

ROOT = Path(__file__).resolve().parent
PACKAGE = ROOT / "src" / "memories"
CONFIG = """
[mypy]
ignore_missing_imports = true
follow_imports = silent
[mypy-memories.foundation.unchecked]
follow_imports = skip
"""
KEPT = 8  # Folders of older sources: to switch between branches compiles nothing anew.
NEEDED = ["mypy==2.4.1", "setuptools>=65"]
# A function in the tables that mypyc writes: up to its name in C, the name, and the docstring.
METHOD = re.compile(
    r"(\(PyCFunction\)CPyPy_(\w+),\s*METH_FASTCALL \| METH_KEYWORDS, )"
    r'PyDoc_STR\((NULL|"(?:[^"\\]|\\.)*")\)'
)
ESCAPED = {'"': '\\"', "\\": "\\\\", "\n": "\\n"}


class CannotCompileError(Exception):
    """The core cannot be compiled here; the message says why."""


def names() -> ModuleType:
    """Return the module that knows what is compiled, without importing the package."""
    loader = SourceFileLoader("memories_compiled", str(PACKAGE / "compiled.py"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def lacking() -> str | None:
    """Return what is missing in Python and the machine to compile anything, or None."""
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "compiled code relies on CPython with its lock"
    command = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(command) is None:
        return f"no C compiler was found ({command})"
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").is_file():
        return f"the headers of Python are missing ({headers})"
    return None


def compile_core() -> Path:
    """Return the folder of the compiled core, made now if it is not there.

    Raises:
        CannotCompileError: it cannot be compiled here.
    """
    folder: Path = names().folder_of(PACKAGE)
    if folder.is_dir():
        return folder
    absent = [name for name in ("mypyc", "setuptools") if find_spec(name) is None]
    if missing := lacking() or (f"{absent[0]} is not installed" if absent else None):
        raise CannotCompileError(missing)
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as making:
        run = subprocess.run(
            [sys.executable, __file__, "--into", making],
            cwd=PACKAGE.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if run.returncode:
            raise CannotCompileError("the compiler failed:\n" + run.stdout[-2000:].strip())
        if names().folder_of(PACKAGE) != folder:
            raise CannotCompileError("the sources were edited meanwhile: compile again")
        # One rename: another process sees the whole folder or none.
        made = Path(making) / "lib" / PACKAGE.name
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():  # Another process was faster.
                raise
    others = sorted(
        folder.parent.glob(f"[!.]*{folder.suffix}"), key=lambda one: one.stat().st_mtime
    )
    for old in others[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def build_into(making: str) -> None:
    """Compile everything into `lib` in the folder `making`."""
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.errors import CCompilerError

    modules = names()
    sources = [modules.source_of(PACKAGE, module) for module in modules.MODULES]
    config = Path(making) / "mypy.ini"
    config.write_text(CONFIG)
    options = [
        f"--config-file={config}",
        f"--cache-dir={ROOT / '.mypy_cache' / 'compiled'}",
        "--python-version={}.{}".format(*sys.version_info),
    ]
    extensions = mypycify(
        [*options, *(str(source.relative_to(PACKAGE.parent)) for source in sources)],
        target_dir=f"{making}/c",
        group_name=modules.LIBRARY.removesuffix("__mypyc"),
        debug_level="0",
    )
    document(Path(making), sources)
    for extension in extensions:
        # A newer compiler knows more to warn of.
        extension.extra_compile_args.append("-Wno-error")
    distribution = Distribution({"name": PACKAGE.name, "ext_modules": extensions})
    command = distribution.get_command_obj("build_ext")
    command.build_lib = f"{making}/lib"
    command.build_temp = f"{making}/temp"
    try:
        distribution.run_command("build_ext")
    except CCompilerError as error:
        sys.exit(str(error))  # The compiler itself has said more.


def document(making: Path, sources: list[Path]) -> None:
    """Write signatures and docstrings into the C code: mypyc leaves out the latter."""
    texts = {name: text for source in sources for name, text in documented(source)}

    def with_text(found: re.Match[str]) -> str:
        before, name, _ = found.groups()
        return f"{before}PyDoc_STR({c_string(texts[name])})" if name in texts else found[0]

    for file in making.rglob("*.c"):
        file.write_text(METHOD.sub(with_text, file.read_text()))


def documented(source: Path) -> Iterator[tuple[str, str]]:
    """Yield the C name of each function with a docstring, and what `inspect` reads of it."""
    for node in ast.parse(source.read_text()).body:
        owner = f"___{node.name}" if isinstance(node, ast.ClassDef) else ""
        for one in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(one, ast.FunctionDef) and (text := ast.get_docstring(one)):
                yield (
                    f"{source.stem}{owner}___{one.name}",
                    f"{one.name}({parameters(one.args, bool(owner))})\n--\n\n{text}",
                )


def parameters(arguments: ast.arguments, method: bool) -> str:
    """Return the parameters without types; a default that is not a literal is `...`."""
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    for one in [*every, arguments.vararg, arguments.kwarg]:
        if one is not None:
            one.annotation = None
    for defaults in (arguments.defaults, arguments.kw_defaults):
        defaults[:] = [
            one if one is None or isinstance(one, ast.Constant) else ast.Constant(...)
            for one in defaults
        ]
    return "$" * method + ast.unparse(arguments)


def c_string(text: str) -> str:
    """Return a literal of C."""
    return '"' + "".join(ESCAPED.get(char, char) for char in text) + '"'


def main() -> None:
    """Compile, and say what was done."""
    if sys.argv[1:2] == ["--into"]:
        build_into(sys.argv[2])
        return
    if names().folder_of(PACKAGE).is_dir():
        return
    started = monotonic()
    try:
        folder = compile_core()
    except CannotCompileError as error:
        print(f"the core runs interpreted: {error}")
    else:
        print(f"compiled the core in {monotonic() - started:.0f} s: {folder.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
