"""`manager.cache`: whose result it is. One function's is never given for another's."""

from __future__ import annotations

import argparse
import functools
import inspect
import io
import itertools
import logging
import operator
import os
import random
import runpy
import string
import struct
import subprocess
import sys
import threading
from collections import ChainMap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np
import pytest

from memories import InvalidOptionError, MemoryManager, UnsupportedTypeError


@pytest.fixture
def manager() -> Iterator[MemoryManager]:
    """Return a manager with room to spare."""
    with MemoryManager("10 MB", "10 MB", "100 MB") as made:
        yield made


def results(path: Path, source: str, manager: MemoryManager) -> dict[str, Any]:
    """Run `source` as the script at `path` and return what it leaves behind."""
    path.write_text(source)
    return runpy.run_path(str(path), {"m": manager}, "__main__")


def loaded(path: Path, source: str, manager: MemoryManager) -> ModuleType:
    """Return `source` as a module that was just imported from `path`."""
    path.write_text(source)
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    vars(module)["m"] = manager
    exec(compile(source, str(path), "exec"), vars(module))
    return module


def test_closures_lambdas_and_bindings_are_distinguished(manager: MemoryManager) -> None:
    """All functions of one factory have one name, and all lambdas, too."""

    def make(factor: Any) -> Any:
        def times(x: int) -> Any:
            return x * factor

        return times

    for options in ({}, {"version": 1}):
        made = [manager.cache(make(factor), **options) for factor in (2, 3, 2.0, "ab")]
        assert [20, 30, 20.0, "ab" * 10] == [times(10) for times in made]
        assert float is type(made[2](10))
        first = manager.cache(lambda x: x + 1, **options)
        second = manager.cache(lambda x: x + 100, **options)
        assert (2, 101) == (first(1), second(1))
        powers = [manager.cache(functools.partial(pow, base), **options) for base in (2, 3)]
        assert [8, 27] == [power(3) for power in powers]
        places = [manager.cache([1, 2].index, **options), manager.cache([2, 1].index, **options)]
        assert [1, 0] == [place(2) for place in places]


def test_what_a_function_reads_may_change_between_calls(manager: MemoryManager) -> None:
    """A constant that was replaced, a list that has grown: what it would return now counts."""
    factor, bands = 2, [1]

    @manager.cache
    def scaled(x: int) -> int:
        return x * factor + bands[0]

    found = [scaled(10)]
    factor = 3
    found.append(scaled(10))
    bands[0] = 5
    found.append(scaled(10))
    factor, bands[0] = 2, 1
    found.append(scaled(10))
    assert [21, 31, 35, 21] == found
    assert 1 == scaled.cache_info().hits


def test_what_was_empty_may_grow_and_may_be_replaced(manager: MemoryManager) -> None:
    """An empty container is known by a glance, and None in its place is something else."""
    found: list[int] | None = []

    @manager.cache
    def count(x: int) -> int:
        return -x if found is None else x * len(found)

    empty = found
    results = [count(2)]
    empty.append(1)
    results.append(count(2))
    empty.clear()
    results.append(count(2))
    found = None
    results.append(count(2))
    found = []
    results.append(count(2))
    assert [0, 2, 0, -2, 0] == results
    assert 2 == count.cache_info().hits


def test_what_a_function_counts_is_its_own_affair(manager: MemoryManager) -> None:
    """A log, a counter or a lock beside a function does not make each call another function."""
    calls: list[int] = []
    count, counts, lock = 0, {"n": 0}, threading.Lock()

    @manager.cache
    def noted(x: int) -> int:
        nonlocal count
        with lock:
            calls.append(x)
            counts["n"] += 1
            count += 1
        return x

    assert [1, 2, 1, 2, 1] == [noted(x) for x in (1, 2, 1, 2, 1)]
    assert ([1, 2], 2, {"n": 2}) == (calls, count, counts)


COUNTS = {"g": 0}


def test_counters_may_be_shared(manager: MemoryManager) -> None:
    """A variable that is never read cannot change a result, whatever writes to it."""
    total = 0

    @manager.cache
    def f(x: int) -> int:
        nonlocal total
        total += 1
        COUNTS["f"] = x
        return int(g(x))

    @manager.cache
    def g(x: int) -> int:
        nonlocal total
        total += 1
        COUNTS["g"] += 1
        return x

    assert [1, 2, 1, 2, 1] == [g(1), f(2), g(1), f(2), f(1)]
    assert (4, {"g": 2, "f": 1}) == (total, COUNTS)


LOG: list[int] = [7]
OPTIONS = {"scale": 2}


class Settings:
    """Kept in a class."""

    scale, calls = 2, 0


SETTINGS = Settings()


def plain(x: int) -> int:
    """Log, count, and read one of the settings of each kind."""
    LOG.append(x)
    Settings.calls += 1
    return x * OPTIONS["scale"] * Settings.scale * SETTINGS.scale


def test_globals_count_as_they_are_now(
    manager: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Constants, data, and settings in a class or an object; but not a log, nor a counter."""
    cached = manager.cache(plain)
    assert [8, 8] == [cached(1), cached(1)]
    LOG.clear()
    LOG.extend([1, 2, 3])
    assert 8 == cached(1)
    assert (2, 1) == cached.cache_info()[:2]
    for owner, value, expected in ((Settings, 3, 18), (SETTINGS, 5, 30)):
        monkeypatch.setattr(owner, "scale", value)
        assert expected == cached(1)
    monkeypatch.setitem(OPTIONS, "scale", 7)
    assert 7 * 3 * 5 == cached(1)
    monkeypatch.undo()
    misses = cached.cache_info().misses
    assert 8 == cached(1)
    assert misses == cached.cache_info().misses, "it is the function that it was"


class Gauge:
    """An argument whose class says something, too."""

    unit = 1

    def __init__(self, level: int) -> None:
        self.level = level

    def read(self) -> int:
        """Return what depends on the object, its class and a global of the module."""
        return self.level * self.unit * OPTIONS["scale"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (operator.attrgetter("real"), operator.attrgetter("imag")),
        (operator.itemgetter(0), operator.itemgetter(1)),
        (argparse.Namespace(rate=1), argparse.Namespace(rate=2)),
        (ChainMap({"rate": 1}), ChainMap({"rate": 2})),
        (MappingProxyType({"rate": 1}), MappingProxyType({"rate": 2})),
        (random.Random(1), random.Random(2)),
        (string.Template("$a"), string.Template("$b")),
        (struct.Struct("<I"), struct.Struct("<i")),
        ({"a": 1}.keys(), {"b": 1}.keys()),
        (io.StringIO("a"), io.StringIO("b")),
        (np.poly1d([1, 2]), np.poly1d([1, 3])),
        (np.vectorize(int), np.vectorize(float)),
        (np.random.default_rng(1), np.random.default_rng(2)),
        ({"filter": [np.poly1d([1, 2])]}, {"filter": [np.poly1d([1, 3])]}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_global_of_an_installed_class_counts_by_content(
    manager: MemoryManager, tmp_path: Path, before: Any, after: Any
) -> None:
    """A settings object that was edited is another one, though its type is the same."""
    module = loaded(tmp_path / "settings.py", "def f(x):\n    return x, SETTINGS\n", manager)
    cached = manager.cache(module.f)
    keys = set()
    for value in (before, after, before):
        vars(module)["SETTINGS"] = value
        keys.add(cached.cache_key(1))
    assert 2 == len(keys)


READERS = """
import sqlite3, threading, typing
DATABASE = sqlite3.connect(":memory:", check_same_thread=False)
class Rows:
    database = DATABASE
def helper(x): return x, bool(DATABASE)
def nested(x): return helper(x)
def of_class(x): return x, Rows.__name__
def default(x, database=DATABASE): return x
def held(x): return x, HELD[0] is not None
HELD = [DATABASE]
"""


def test_a_global_that_cannot_be_identified_is_refused_with_advice(
    manager: MemoryManager, tmp_path: Path
) -> None:
    """Another connection of the same type is another database: it may not give the old result."""
    module = loaded(tmp_path / "readers.py", READERS, manager)
    for name, what, ignored in (
        ("helper", "helper reads the global 'DATABASE'", "DATABASE"),
        ("nested", "helper reads the global 'DATABASE'", "DATABASE"),
        ("of_class", "of_class reads the global 'Rows', and Rows keeps 'database'", "Rows"),
        ("default", "default has a default for 'database'", "database"),
        ("held", r"held reads the global 'HELD' \(a builtins.list\)", "HELD"),
    ):
        function = getattr(module, name)
        message = rf"{what}.*sqlite3.Connection.*pass ignore=\['{ignored}'\].*version=1"
        for _ in range(2):
            with pytest.raises(UnsupportedTypeError, match=message) as caught:
                manager.cache(function)(1)
            assert UnsupportedTypeError is caught.type
        expected = function(1)
        assert expected == manager.cache(function, ignore=[ignored])(1)
        assert expected == manager.cache(function, version=1)(1)
    cached = manager.cache(lambda call: call(1))
    with pytest.raises(UnsupportedTypeError, match=r"argument 'call'.*'DATABASE'.*version=1"):
        cached(module.nested)
    assert (1, True) == manager.cache(lambda call: call(1), version=1)(module.nested)
    module.DATABASE.close()


def test_what_can_no_longer_be_identified_is_refused(
    manager: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function could be identified at its first call; what it reads now decides."""
    cached = manager.cache(plain)
    assert 8 == cached(1)
    with open(os.devnull) as file:  # noqa: PTH123 - any open file.
        monkeypatch.setitem(OPTIONS, "log", file)  # type: ignore[arg-type]
        with pytest.raises(UnsupportedTypeError, match=r"'OPTIONS'.*TextIOWrapper"):
            cached(1)
    monkeypatch.undo()
    assert (8, 1) == (cached(1), cached.cache_info().misses)


class Restless:
    """Something that pickle takes apart in another way each time, as one that holds an address."""

    count = itertools.count()

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (next(self.count),)


def test_what_never_has_one_hash_twice_is_refused(manager: MemoryManager, tmp_path: Path) -> None:
    """A cache that never finds anything again, without a word, is no cache."""
    module = loaded(tmp_path / "settings.py", "def f(x):\n    return x, SETTINGS\n", manager)
    vars(module)["SETTINGS"] = Restless()
    with pytest.raises(UnsupportedTypeError, match=r"'SETTINGS'.*Restless.*each time.*ignore="):
        manager.cache(module.f)(1)


def test_what_serves_a_function_does_not_count(manager: MemoryManager, tmp_path: Path) -> None:
    """A lock, a logger, a mark: nothing of it comes back, and every program has some."""
    source = "def f(x):\n    return x if TOOL else -x\n"
    module = loaded(tmp_path / "tools.py", source, manager)
    cached = manager.cache(module.f)
    for make in (
        threading.Lock, threading.Event, object, lambda: logging.getLogger(str(random.random())),
        lambda: logging.StreamHandler(io.StringIO()),
    ):  # fmt: skip
        tools = [make(), make()]
        keys = set()
        for tool in tools:
            vars(module)["TOOL"] = tool
            keys.add(cached.cache_key(1))
        assert 1 == len(keys)
    vars(module)["TOOL"] = manager
    one = cached.cache_key(1)
    manager.store("k", 1)
    assert one == cached.cache_key(1), "which store it is counts, and not what lies in it"
    with MemoryManager("10 MB", "10 MB", "100 MB", storage_path=tmp_path / "other") as other:
        vars(module)["TOOL"] = other
        assert one != cached.cache_key(1)


def test_what_an_installed_module_keeps_is_identified_by_name(
    manager: MemoryManager, tmp_path: Path
) -> None:
    """`from random import random` is the same function as `random.random`: each call draws."""
    source = "from random import random\ndef f(x):\n    return x + 0 * random()\n"
    module = loaded(tmp_path / "draws.py", source, manager)
    cached = manager.cache(module.f)
    keys = set()
    for _ in range(2):
        random.random()
        keys.add(cached.cache_key(1))
    assert 1 == len(keys)
    stats = pytest.importorskip("scipy.stats")
    frozen = stats.norm(1, 2)
    for distributions, count in (((stats.norm, stats.norm), 1), ((frozen, stats.norm(1, 3)), 2)):
        keys = set()
        for found in distributions:
            vars(module)["random"] = found
            keys.add(cached.cache_key(1))
            np.random.random()
        assert count == len(keys)


DYNAMIC = """
import os
from os import environ
def subscript(x): return x, os.environ["MEMORIES_A_SCALE"]
def asked(x): return x, os.getenv("MEMORIES_A_SCALE", "1")
def imported(x): return x, environ.get("MEMORIES_A_SCALE")
def named(x): return x, globals()["SCALE"]
"""


def test_constant_names_are_looked_up(
    manager: MemoryManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable of the environment, or a global in `globals()`, is read like any other."""
    module = loaded(tmp_path / "dynamic.py", DYNAMIC, manager)
    functions = [module.subscript, module.asked, module.imported, module.named]
    cached = [manager.cache(function) for function in functions]
    for scale in ("2", "3", "2"):
        monkeypatch.setenv("MEMORIES_A_SCALE", scale)
        vars(module)["SCALE"] = scale
        assert [(1, scale)] * 4 == [function(1) for function in cached]
    assert [(1, 2)] * 4 == [function.cache_info()[:2] for function in cached]
    monkeypatch.delenv("MEMORIES_A_SCALE")
    assert [(1, "1"), (1, None)] == [function(1) for function in cached[1:3]]
    monkeypatch.setenv("MEMORIES_B_SCALE", "5")
    misses = cached[1].cache_info().misses
    assert (1, "1") == cached[1](1)
    assert misses == cached[1].cache_info().misses, "what it does not ask for does not count"


def test_objects_of_packages_are_found_by_another_process(tmp_path: Path) -> None:
    """Neither an address nor a cache that such an object fills tells it from itself."""
    script = tmp_path / "script.py"
    source = (
        "import ctypes, struct, sys\n"
        "import numpy as np\n"
        "from typing import Protocol\n"
        "from memories import MemoryManager\n"
        "class Shape(Protocol):\n"
        "    def area(self) -> float: ...\n"
        "MATHS, POLYNOMIAL, RECORD = ctypes.CDLL(None), np.poly1d([1, {}]), struct.Struct('<I')\n"
        "DOUBLED = np.vectorize(lambda x: 2 * x, otypes=[float])\n"
        "def f(x):\n"
        "    return POLYNOMIAL(DOUBLED([x])), RECORD.size, MATHS is None, Shape.__name__\n"
        "with MemoryManager(1, 1, 1, storage_path=sys.argv[1]) as m:\n"
        "    f = m.cache(f, tier='cold')\n"
        "    found = [float(f(1)[0][0]) for _ in range(2)]\n"
        "    print(found, *f.cache_info()[:2])\n"
    )
    found = []
    for constant in (2, 2, 3):
        script.write_text(source.format(constant))
        command = [sys.executable, script, tmp_path / "store"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        found.append(done.stdout.strip())
    assert ["[4.0, 4.0] 1 1", "[4.0, 4.0] 2 0", "[5.0, 5.0] 1 1"] == found


def test_a_compiled_function_is_its_source(manager: MemoryManager, tmp_path: Path) -> None:
    """What numba makes of a function has a random name in each process."""
    numba = pytest.importorskip("numba")
    module = loaded(tmp_path / "compiled.py", "def f(x):\n    return FAST(x)\n", manager)
    cached = manager.cache(module.f)
    keys = []
    for compiled in (
        numba.njit(identity), numba.njit(identity), numba.njit("i8(i8)")(identity),
        numba.njit("f4(f4)")(identity), numba.njit(successor),
    ):  # fmt: skip
        vars(module)["FAST"] = compiled
        keys.append(cached.cache_key(1))
        assert compiled(1) == cached(1)
        assert keys[-1] == cached.cache_key(1)
    assert keys[0] == keys[1]
    assert 4 == len(set(keys))


def identity(x: int) -> int:
    """Return what was given."""
    return x


def successor(x: int) -> int:
    """Return one more."""
    return x + 1


def test_the_class_of_an_argument_counts_as_it_is_now(
    manager: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its attributes and methods show in each of its objects."""

    @manager.cache
    def level(gauge: Gauge) -> int:
        return gauge.read()

    assert [2, 4, 4] == [level(Gauge(1)), level(Gauge(2)), level(Gauge(2))]
    monkeypatch.setattr(Gauge, "unit", 10)
    assert 40 == level(Gauge(2))
    monkeypatch.setitem(OPTIONS, "scale", 3)
    assert 60 == level(Gauge(2))
    monkeypatch.setattr(Gauge, "read", lambda self: -1)
    assert -1 == level(Gauge(2))
    monkeypatch.undo()
    assert (4, 2) == (level(Gauge(2)), level.cache_info().hits)


def test_what_cannot_be_identified_is_refused_with_advice(manager: MemoryManager) -> None:
    """Two connections are two databases; only the author knows whether it matters."""
    with open(os.devnull) as connection:  # noqa: PTH123 - any open file.

        def read(x: int) -> tuple[int, str]:
            return x, connection.name

        with pytest.raises(UnsupportedTypeError, match=r"read closes over 'connection'.*ignore="):
            manager.cache(read)(1)
        with pytest.raises(UnsupportedTypeError, match=r"'connection'.*TextIOWrapper"):
            manager.cache(read, version=1)(1)
        assert (1, os.devnull) == manager.cache(read, ignore=["connection"])(1)
        with pytest.raises(UnsupportedTypeError, match=r"argument 'obj'.*TextIOWrapper.*ignore="):
            manager.cache(repr)([connection])
        with pytest.raises(UnsupportedTypeError, match=r"the key of .*TextIOWrapper"):
            manager.cache(repr, key=lambda obj: obj)(connection)
        with pytest.raises(UnsupportedTypeError, match=r"its content.*ignore=\['self'\]"):
            manager.cache(connection.readable)()
        assert manager.cache(connection.readable, ignore=["self"])()
    with pytest.raises(InvalidOptionError, match="glacier"):
        manager.cache(read, tier="glacier")
    with pytest.raises(InvalidOptionError, match="version"):
        manager.cache(read, version=1.5)
    with pytest.raises(InvalidOptionError, match="tier"):
        manager.cache(read, tier="tepid")


EDITS = """
SCALE = {scale}
def helper(x, plus={plus}):
    return x * SCALE {operator} plus
class Model:
    def __init__(self, weight): self.weight = weight
    def predict(self, x): return self.weight * x {operator} 1
    {decorator}
    def method(self, x): return self.predict(x)
{decorator}
def f(x):
    {comment}
    return helper(x)
{decorator}
def g(x, model=Model(3)):
    return model.predict(x)
found = f(10), g(10), Model(5).method(10)
"""


def edited(**changes: str) -> str:
    """Return the source of a module, with some of it changed."""
    parts = {"scale": "2", "plus": "1", "operator": "+", "comment": "pass", "decorator": "@m.cache"}
    return EDITS.format(**{**parts, **changes})


def test_an_edited_function_computes_anew(manager: MemoryManager, tmp_path: Path) -> None:
    """So do those that call what was edited: constants, defaults, helpers, classes."""
    path = tmp_path / "model.py"
    for changes, expected in (
        ({}, (21, 31, 51)),
        ({"scale": "3"}, (31, 31, 51)),
        ({"plus": "5"}, (25, 31, 51)),
        ({"operator": "-"}, (19, 29, 49)),
        ({}, (21, 31, 51)),
    ):
        assert expected == loaded(path, edited(**changes), manager).found
        assert expected == results(path, edited(**changes), manager)["found"]
    module = loaded(path, edited(comment="'''More words.'''  # And more."), manager)
    assert (1, 0) == module.f.cache_info()[:2], "a comment costs nothing"


def test_a_version_keeps_results_across_edits(manager: MemoryManager, tmp_path: Path) -> None:
    """The author says when they change; what a function closes over counts all the same."""
    path = tmp_path / "model.py"
    for decorator, scale, expected in (
        ("@m.cache(version=1)", "2", 21),
        ("@m.cache(version=1)", "3", 21),
        ("@m.cache(version=2)", "3", 31),
        ("@m.cache(version=1)", "4", 21),
    ):
        module = loaded(path, edited(decorator=decorator, scale=scale), manager)
        assert expected == module.found[0]
    assert 1 == module.f.cache_info().results
    module.f.cache_clear()
    assert not [key for key in manager if ".f/" in key]


def test_functions_of_one_name_in_two_files_are_two(manager: MemoryManager, tmp_path: Path) -> None:
    """Every script is `__main__`, and every project has its `utils`."""
    for decorator in ("@m.cache", "@m.cache(version=1)"):
        source = decorator + "\ndef f(x): return {}\nfound = f(1)"
        found = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir(exist_ok=True)
            path = tmp_path / name / "utils.py"
            found.append(results(path, source.format(f"x, {name!r}"), manager)["found"])
            found.append(loaded(path, source.format(f"x, {name!r}"), manager).found)
        assert [(1, "one")] * 2 + [(1, "two")] * 2 == found


def test_cells_of_a_notebook_work(manager: MemoryManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no file; a cell that runs again is the same function, an edited one another."""
    namespace: dict[str, Any] = {"__name__": "__main__", "m": manager}

    def cell(source: str, number: int) -> Any:
        exec(compile(source, f"<ipython-input-{number}>", "exec"), namespace)
        return namespace["f"](10)

    first = "def h(x): return x + 1\n@m.cache\ndef f(x): return h(x)"
    assert [11, 11] == [cell(first, 1), cell("pass\n" + first, 2)]
    assert 1 == namespace["f"].cache_info().hits
    assert 12 == cell("def h(x): return x + 2", 3)
    assert 13 == cell("@m.cache\ndef f(x): return h(x) + 1", 4)
    versioned = "@m.cache(version=1)\ndef f(x): return {}"
    assert 1 == cell(versioned.format(1), 5)
    assert 1 == cell(versioned.format(2), 6)
    monkeypatch.setenv("JPY_SESSION_NAME", "/notebooks/other.ipynb")
    assert 3 == cell(versioned.format(3), 7)


def test_results_are_found_by_another_process(tmp_path: Path) -> None:
    """With another seed for hashes, other addresses, and constants in another order."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from memories import MemoryManager\n"
        "NAMES, TABLE = {'a', 'bb', 'ccc'}, {'x': [1, 2]}\n"
        "def make(factors):\n"
        "    def f(x, y=frozenset('abc')):\n"
        "        return x in {'k', 'l', 'm'}, sorted(NAMES), TABLE, factors\n"
        "    return f\n"
        "with MemoryManager(1, 1, 1, storage_path=sys.argv[1]) as m:\n"
        "    f = m.cache(make({'one', 'two'}), tier='cold')\n"
        "    f({'p', 'q', 'r'})\n"
        "    print(*f.cache_info()[:2])\n"
    )
    found = [
        subprocess.run(
            [sys.executable, script, tmp_path / "store"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout.split()
        for seed in ("1", "2", "3")
    ]
    assert [["0", "1"], ["1", "0"], ["1", "0"]] == found


def test_a_script_and_what_imports_it_share_their_results(tmp_path: Path) -> None:
    """A module is tried as a script first, and later imported by the program that needs it."""
    (tmp_path / "study.py").write_text(
        "import multiprocessing, sys\n"
        "from dataclasses import dataclass\n"
        "from memories import MemoryManager\n"
        "of_workers = __name__ == '__main__' and sys.argv[2:] == ['workers']\n"
        "m = MemoryManager(1, 1, 1, storage_path=None if of_workers else sys.argv[1])\n"
        "@dataclass\n"
        "class Settings:\n"
        "    scale: int = 3\n"
        "def helper(x, settings): return x * settings.scale\n"
        "@m.cache\n"
        "def f(x, settings): return helper(x, settings)\n"
        "@m.cache(version=1)\n"
        "def g(x): return helper(x, Settings())\n"
        "def main():\n"
        "    f(1, Settings()), g(2)\n"
        "    print(f.cache_info().hits, g.cache_info().hits)\n"
        "    m.cleanup()\n"
        "if of_workers:\n"
        "    multiprocessing.get_context('spawn').Process(target=main).start()\n"
        "elif __name__ == '__main__':\n"
        "    main()\n"
    )
    (tmp_path / "program.py").write_text("import study\nstudy.main()\n")
    found = [
        subprocess.run(
            [sys.executable, name, tmp_path / "store", *options],
            capture_output=True, text=True, check=True, timeout=120, cwd=tmp_path,
        ).stdout.split()
        for name, *options in (
            ("study.py",), ("program.py",), ("study.py", "workers"), ("study.py",)
        )
    ]  # fmt: skip
    assert [["0", "0"], ["1", "1"], ["1", "1"], ["1", "1"]] == found


def test_arguments_are_identified_by_name_however_they_came(manager: MemoryManager) -> None:
    """Position, keyword and default are one call; the order of `**` shows, and is another."""
    missing = object()

    @manager.cache
    def f(x: Any, /, y: Any = (1, 2.0), *rest: Any, z: Any = missing, **more: Any) -> list[str]:
        return [repr(y), *more]

    same = [f(1), f(1, (1, 2.0)), f(1, y=(1, 2.0)), f(1, z=missing)]
    assert [["(1, 2.0)"]] * 4 == same
    assert (3, 1) == f.cache_info()[:2]
    assert [["a", "b"], ["b", "a"]] == [f(1, a=1, b=2)[1:], f(1, b=2, a=1)[1:]]
    assert 8 == len({f.cache_key(*args) for args in (
        (1,), (1.0,), (True,), ("1",), (b"1",), ([1],), ((1,),), (1, (1.0, 2.0)),
    )})  # fmt: skip
    assert f.cache_key(1, z=None) != f.cache_key(1)
    with pytest.raises(TypeError, match="missing a required argument"):
        f()


class Callable_:
    """An object that is called."""

    def __init__(self, weight: int) -> None:
        self.weight = weight

    def __call__(self, x: int) -> int:
        """Return a product."""
        return self.weight * x


def test_whatever_can_be_called_works_or_is_refused(manager: MemoryManager) -> None:
    """A method of a class, an object that is called, a compiled function, a generator."""

    class Service:
        def __init__(self, weight: int) -> None:
            self.weight = weight

        @manager.cache
        def method(self, x: int) -> int:
            return self.weight * x

        @staticmethod
        @manager.cache
        def above(x: int) -> tuple[str, int]:
            return "above", x

        @manager.cache
        @staticmethod
        def below(x: int) -> tuple[str, int]:
            return "below", x

        @classmethod
        @manager.cache
        def name(cls, x: int) -> tuple[str, int]:
            return cls.__name__, x

        @manager.cache
        @classmethod
        def label(cls, x: int) -> tuple[str, int]:
            return cls.__name__, -x

    class Other(Service):
        """A subclass."""

    assert [2, 3, 3] == [Service(1).method(2), Service(3).method(1), Service(3).method(x=1)]
    assert 1 == Service.method.cache_info().hits
    assert [("above", 1), ("below", 1)] * 2 == [
        call(1) for owner in (Service, Other(1)) for call in (owner.above, owner.below)
    ]
    assert [("Service", 1), ("Other", 1)] == [Service.name(1), Other.name(1)]
    assert [("Service", -1), ("Other", -1)] == [Service.label(1), Other(1).label(1)]

    called = Callable_(2)
    cached, bound = manager.cache(called), manager.cache(Service(2).method)
    assert (6, 6) == (cached(3), bound(3))
    called.weight = 5
    assert 15 == cached(3)
    assert [3, 7, 3, 6] == [
        manager.cache(function)(*args)
        for function, args in ((int, ("3",)), (max, (3, 7)), (np.add, (1, 2)), (np.sum, ([6],)))
    ]
    assert 4 == manager.cache(functools.lru_cache(Service.below))(4)[1]
    assert 4 == functools.lru_cache(manager.cache(lambda x: x))(4)

    def generator() -> Iterator[int]:
        yield 1

    async def asynchronous() -> Any:
        yield 1

    for refused, message in (
        (generator, "read once: return a list"), (asynchronous, "read once"),
        (functools.partial(generator), "read once"), (3, "not a function"),
        (property(lambda self: 1), "put `cache` below"), (functools.cached_property(len), "below"),
    ):  # fmt: skip
        with pytest.raises(UnsupportedTypeError, match=message):
            manager.cache(refused)


def test_cached_functions_may_be_stacked(manager: MemoryManager) -> None:
    """Each keeps its own manager, version, options and counts, whatever was copied to it."""
    with MemoryManager("5 MB", "5 MB", "20 MB") as other:

        def f(x: int) -> list[int]:
            """Say something."""
            return [x]

        f.author = "an author"  # type: ignore[attr-defined]
        inner = manager.cache(f, version=1, tier="warm")
        outer = other.cache(inner, version=2, tier="hot", ttl=60)
        assert [[1]] * 3 == [outer(1), outer(1), inner(1)]
        assert (1, 1) == outer.cache_info()[:2] == inner.cache_info()[:2]
        assert "hot" == other.get_tier(outer.cache_key(1))
        assert "warm" == manager.get_tier(inner.cache_key(1))
        assert 1 == len(other) == len(manager)
        assert outer.cache_key(1) != inner.cache_key(1)
        outer.cache_clear()
        assert (0, 1) == (len(other), len(manager))
        assert ("an author", "Say something.", "f") == (outer.author, outer.__doc__, outer.__name__)
        assert f is inspect.unwrap(outer)
        assert {
            "cache_key",
            "cache_info",
            "cache_clear",
            "cache_parameters",
            "author",
            "__wrapped__",
        } == set(vars(outer)), "nothing else is copied by functools.wraps"


def test_a_decorator_below_counts(manager: MemoryManager) -> None:
    """What it closes over is part of the function, and so is the function it wraps."""

    def multiplied(factor: int) -> Callable[[Any], Any]:
        def decorate(function: Any) -> Any:
            @functools.wraps(function)
            def wrapper(*args: Any) -> Any:
                return factor * function(*args)

            return wrapper

        return decorate

    @manager.cache
    @multiplied(2)
    def f(x: int) -> int:
        return x

    doubled = f

    @manager.cache
    @multiplied(3)
    def f(x: int) -> int:  # type: ignore[no-redef]
        return x

    tripled = f

    @manager.cache
    @multiplied(3)
    def f(x: int) -> int:  # type: ignore[no-redef]
        return x + 1

    assert [20, 30, 33] == [doubled(10), tripled(10), f(10)]


def test_an_own_key_is_part_of_the_function(manager: MemoryManager) -> None:
    """What stood under `a` by one key function means something else under another's."""

    def difference(a: int, b: int) -> int:
        return a - b

    by_a = manager.cache(difference, key=lambda a, b: a)
    by_b = manager.cache(difference, key=lambda a, b: b)
    assert [2, -2] == [by_a(5, 3), by_b(3, 5)]
