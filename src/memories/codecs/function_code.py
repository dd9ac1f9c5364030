"""What a function is made of: the file it stands in, its instructions, the names it reads.

Not what those names stand for, which `hashing` looks up. The one idea: instructions are hashed
together with the constants they load, so that comments, line numbers and docstrings say nothing,
and no source has to be there.
"""

from __future__ import annotations

import dis
import functools
import os
import re
import struct
import sysconfig
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import CodeType
from typing import Any

import xxhash

_SESSION = ("__vsc_ipynb_file__",)  # What names the notebook in VS Code; others tell the kernel.
_SESSION_VARIABLE = "JPY_SESSION_NAME"
_READS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_WRITES = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL", "STORE_DEREF", "DELETE_DEREF"})
_OUTER = _READS | {"LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"}
# Methods of builtin containers that return None: through them nothing comes back.
_FEEDS = frozenset(
    {"add", "append", "appendleft", "clear", "extend", "extendleft", "insert", "update"}
)
# What follows the load of `x`, in `x[a] = ...`, `x[a] += b` and `x += b`, with a name or a constant
# as `a` and `b`.
_SHORT = re.compile(r"LOAD_(CONST|SMALL_INT|FAST\w*|DEREF|GLOBAL|NAME)")
_ITEM = re.compile(r"LOAD( COPY COPY BINARY_\w+ LOAD BINARY_OP SWAP SWAP)? STORE_SUBSCR")
_COUNTED = re.compile(r"LOAD BINARY_OP STORE_(DEREF|GLOBAL|NAME)")
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_CONSTANT = frozenset(dis.hasconst)
_HAS_DOCSTRING = 0x4000000  # A flag of Python 3.13 that says nothing about what the code does.

_PACKAGE = str(Path(__file__).parent.parent)

_digests: weakref.WeakKeyDictionary[CodeType, bytes] = weakref.WeakKeyDictionary()


def hash_all(mark: bytes, digests: Iterable[bytes]) -> bytes:
    """Return one digest of several, each with its length, under a mark that says what they are."""
    hasher = xxhash.xxh3_128(struct.pack("<I", len(mark)) + mark)
    for digest in digests:
        hasher.update(struct.pack("<Q", len(digest)))
        hasher.update(digest)
    return hasher.digest()


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
    """Return the texts of one line in `code`: what may be a name by which it looks something up."""
    found = [text for inner in _with_inner(code) for text in inner.co_consts]
    return [text for text in found if isinstance(text, str) and text.isprintable() and text]


def names_written(code: CodeType) -> set[str]:
    """Return the global names and outer variables that `code` itself gives other values."""
    return {
        str(step.argval)
        for inner in _with_inner(code)
        for step in dis.get_instructions(inner)
        if step.opname in _WRITES
    }


def names_fed(code: CodeType) -> set[str]:
    """Return the outer names that `code` only writes through, and never learns anything from.

    A log that is appended to, a dict that items are put into, a number that is counted up.
    """
    fed, used = set[str](), set[str]()
    for inner in _with_inner(code):
        steps = list(dis.get_instructions(inner))
        for place, step in enumerate(steps):
            if step.opname in _OUTER:
                (fed if _only_feeds(steps[place:]) else used).add(str(step.argval))
    return fed - used


def _only_feeds(steps: list[dis.Instruction]) -> bool:
    """Return whether the object that the first of `steps` loads is fed by those that follow."""
    loaded, after = steps[0], steps[1:]
    if after[0].opname in ("LOAD_METHOD", "LOAD_ATTR"):
        return after[0].argval in _FEEDS
    names = " ".join(_SHORT.sub("LOAD", step.opname) for step in after[:9])
    if _ITEM.match(names):
        return True
    counted = _COUNTED.match(names)
    return counted is not None and after[2].argval == loaded.argval


def place_of(namespace: Mapping[str, Any]) -> str:
    """Return what tells the module with this namespace from others of its name: its file.

    A session without a file is told by the name of the notebook, or by the directory it runs in.
    """
    file = namespace.get("__file__")
    if isinstance(file, str):
        return _real(file)
    name = str(namespace.get("__name__"))
    if name not in ("__main__", "__mp_main__"):
        return name
    told = next((namespace[key] for key in _SESSION if isinstance(namespace.get(key), str)), None)
    return f"session:{told or os.environ.get(_SESSION_VARIABLE) or Path.cwd()}"


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
        elif step.opname != "NOP":  # A `pass`, say: kept for those who step through.
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
