"""The code of a function: its file, its instructions, and the names that it reads and writes.

Instructions are hashed together with the constants that they load. Comments, line numbers and
docstrings do not count, and no source is needed. `function_hash` looks up the values of the names.
"""

from __future__ import annotations

import dis
import functools
import os
import re
import sysconfig
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import CodeType
from typing import Any

from memories.codecs.digests import hash_all
from memories.codecs.main_classes import SCRIPTS

_SESSION = ("__vsc_ipynb_file__",)  # The path of the notebook in VS Code.
_SESSION_VARIABLE = "JPY_SESSION_NAME"
_READS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_WRITES = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL", "STORE_DEREF", "DELETE_DEREF"})
_OUTER = _READS | {"LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"}
# Methods of builtin containers that return None.
_WRITING_METHODS = frozenset(
    {"add", "append", "appendleft", "clear", "extend", "extendleft", "insert", "update"}
)
# What follows the load of `x`, in `x[a] = ...`, `x[a] += b` and `x += b`, with a name or a constant
# as `a` and `b`.
_SHORT = re.compile(r"LOAD_(CONST|SMALL_INT|FAST\w*|DEREF|GLOBAL|NAME)")
_ITEM = re.compile(r"LOAD( COPY COPY BINARY_\w+ LOAD BINARY_OP SWAP SWAP)? STORE_SUBSCR")
_COUNTED = re.compile(r"LOAD BINARY_OP STORE_(DEREF|GLOBAL|NAME)")
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_CONSTANT = frozenset(dis.hasconst)
_HAS_DOCSTRING = 0x4000000  # A flag of Python 3.13 that does not change what the code does.

_PACKAGE = str(Path(__file__).parent.parent)

_digests: weakref.WeakKeyDictionary[CodeType, bytes] = weakref.WeakKeyDictionary()


def code_digest(code: CodeType) -> bytes:
    """Return the hash of what `code` does; another minor version of Python has another."""
    found = _digests.get(code)
    if found is None:
        found = _digests[code] = hash_all(b"code", _content(code))
    return found


def names_read(code: CodeType) -> list[str]:
    """Return the global names that `code`, or a function inside of it, reads; in their order."""
    found = dict.fromkeys(
        step.argval
        for inner in _with_inner(code)
        for step in dis.get_instructions(inner)
        if step.opname in _READS
    )
    return [name for name in found if isinstance(name, str)]


def names_in(code: CodeType) -> set[str]:
    """Return all names in `code`, of globals and of attributes."""
    return {name for inner in _with_inner(code) for name in inner.co_names}


def texts_in(code: CodeType) -> list[str]:
    """Return the strings of one line in `code`, which may be names that it looks up."""
    found = [text for inner in _with_inner(code) for text in inner.co_consts]
    return [text for text in found if isinstance(text, str) and text.isprintable() and text]


def names_written(code: CodeType) -> set[str]:
    """Return the global names and outer variables that `code` assigns."""
    return {
        str(step.argval)
        for inner in _with_inner(code)
        for step in dis.get_instructions(inner)
        if step.opname in _WRITES
    }


def write_only_names(code: CodeType) -> set[str]:
    """Return the outer names that `code` only writes to, and never reads a value from.

    Examples are a list that is appended to, a dict that gets items, a number that is increased.
    """
    written, used = set[str](), set[str]()
    for inner in _with_inner(code):
        steps = list(dis.get_instructions(inner))
        for place, step in enumerate(steps):
            if step.opname in _OUTER:
                (written if _only_writes(steps[place:]) else used).add(str(step.argval))
    return written - used


def _only_writes(steps: list[dis.Instruction]) -> bool:
    """Return whether the steps after the first only write to the object that the first loads."""
    loaded, after = steps[0], steps[1:]
    if after[0].opname in ("LOAD_METHOD", "LOAD_ATTR"):
        return after[0].argval in _WRITING_METHODS
    names = " ".join(_SHORT.sub("LOAD", step.opname) for step in after[:9])
    if _ITEM.match(names):
        return True
    counted = _COUNTED.match(names)
    return counted is not None and after[2].argval == loaded.argval


def place_of(namespace: Mapping[str, Any]) -> str:
    """Return the file of the module with this namespace, which identifies it.

    A session without a file is identified by its notebook, or by its working directory.
    """
    file = namespace.get("__file__")
    if isinstance(file, str):
        return _real(file)
    name = str(namespace.get("__name__"))
    if name not in SCRIPTS:
        return name
    book = next((namespace[key] for key in _SESSION if isinstance(namespace.get(key), str)), None)
    return f"session:{book or os.environ.get(_SESSION_VARIABLE) or Path.cwd()}"


@functools.lru_cache(4096)
def is_installed(file: str) -> bool:
    """Return whether `file` belongs to Python or to an installed package, not to the program."""
    if not _INSTALLED.isdisjoint(Path(file).parts):
        return True
    paths = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), _PACKAGE)
    return file.startswith(tuple(_real(path) + os.sep for path in paths))


@functools.lru_cache(4096)
def _real(file: str) -> str:
    return os.path.realpath(file)


def _with_inner(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _with_inner(constant)


def _content(code: CodeType) -> Iterator[bytes]:
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
    yield repr((*counts, code.co_flags & ~_HAS_DOCSTRING)).encode()
    for names in (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars):
        yield repr(names).encode()
    yield code.co_exceptiontable
    for step in dis.get_instructions(code):
        if step.opcode in _CONSTANT:
            yield step.opname.encode() + _constant(step.argval)
        elif step.opname != "NOP":  # For example of a `pass`.
            yield f"{step.opname}:{step.arg}".encode()


def _constant(value: Any) -> bytes:
    if isinstance(value, CodeType):
        return hash_all(b"inner", [value.co_name.encode(), code_digest(value)])
    if isinstance(value, tuple):
        return hash_all(b"tuple", [_constant(item) for item in value])
    if isinstance(value, frozenset):
        return hash_all(b"frozenset", sorted(_constant(item) for item in value))
    if isinstance(value, slice):
        return hash_all(b"slice", [_constant([value.start, value.stop, value.step])])
    return f"{type(value).__name__}:{value!r}".encode("utf-8", "surrogatepass")
