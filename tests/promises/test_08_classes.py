"""Promise 8, its other side: an object whose class is not there is no damaged data.

Real scripts, each in a process of its own, on one store.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.promises.conftest import Make

from memories import UnsupportedTypeError

OPEN = """
import sys, warnings
from memories import MemoryManager
def opened(**options):
    return MemoryManager("5MB", "5MB", "50MB", storage_path=sys.argv[1], **options)
"""
CLASSES = """
import dataclasses, enum, typing
class Plain:
    def __init__(self): self.a = 1
@dataclasses.dataclass
class Data: a: int = 1
class Kind(enum.Enum): A = 1
class Named(typing.NamedTuple): a: int = 1
class OddError(Exception): pass
def function(): pass
VALUES = dict(Plain=Plain(), Data=Data(), Kind=Kind.A, Named=Named(), OddError=OddError())
VALUES["function"] = function
"""
WRITE = f"""{OPEN}{CLASSES}
with opened() as manager:
    for name, value in VALUES.items():
        manager.store(name, [value], "cold" if name == "Data" else "hot")
        manager.store(f"{{name}}/again", value)
"""
READ = f"""{OPEN}
from memories import UnsupportedTypeError
with opened() as manager:
    copy = lambda key: manager.retrieve(key, copy=True)
    many = lambda key: manager.retrieve_many([key])
    for key in list(manager):
        for read in (manager.retrieve, copy, many):
            try:
                print("READ", key, read(key))
            except UnsupportedTypeError as error:
                print("REFUSED", key, error)
        manager.migrate(key, "warm")
        try:
            manager.retrieve(key)
        except UnsupportedTypeError as error:
            print("REFUSED", key, error)
    manager.check(repair=True)
"""
READ_THERE = f"""{OPEN}{CLASSES}
with opened() as manager:
    for key in list(manager):
        print(key, manager.retrieve(key))
"""


def run(code: str, *arguments: object, directory: Path, name: str = "script.py") -> tuple[str, str]:
    """Run a script and return what it printed and what it warned of."""
    path = directory / name
    path.write_text(code)
    done = subprocess.run(
        [sys.executable, path, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout, done.stderr


def test_a_class_of_another_script_is_named_and_nothing_is_called_damaged(tmp_path: Path) -> None:
    """The value is whole: an error that calls it corrupt would make its owner delete it."""
    _, warned = run(WRITE, tmp_path / "store", directory=tmp_path)
    names = ("Plain", "Data", "Kind", "Named", "OddError", "function")
    for name in names:
        assert 1 == warned.count(f" needs {name} of the script")
    said, _ = run(READ, tmp_path / "store", directory=tmp_path, name="other.py")
    refused = [line for line in said.splitlines() if line.startswith("REFUSED")]
    assert "READ" not in {line.split()[0] for line in said.splitlines()}
    for name in names:
        for key in (name, f"{name}/again"):
            mine = [line for line in refused if line.startswith(f"REFUSED {key} ")]
            assert 4 == len(mine), said
            for line in mine:
                assert repr(key) in line
                assert f"__main__.{name}, which is not there" in line
                assert "script that stored" in line
    said, _ = run(READ_THERE, tmp_path / "store", directory=tmp_path, name="again.py")
    assert 2 * len(names) == len(said.splitlines())


def test_no_warning_about_what_no_other_program_can_see(tmp_path: Path) -> None:
    """A private store ends with its process: whatever is in it can be read as long as it is."""
    private = WRITE.replace("storage_path=sys.argv[1], ", "")
    assert ("", "") == run(private, tmp_path, directory=tmp_path)


def test_the_warning_points_at_the_line_that_stores(tmp_path: Path) -> None:
    """Where to mend it is the caller's line, not one of ours."""
    here = "manager = opened()\nmanager.store('k', Plain())  # Here.\nmanager.cleanup()"
    _, warned = run(OPEN + CLASSES + here, tmp_path / "store", directory=tmp_path)
    assert "# Here." in warned


def test_every_class_of_one_value_is_named(tmp_path: Path) -> None:
    """A user who moves one class to a module should not learn of the next one afterwards."""
    both = (
        "class Other: pass\nmanager = opened()\nplain = Plain()\nplain.other = [Other(), Other()]"
    )
    more = "\nmanager.store('k', plain)\nmanager.cleanup()"
    _, warned = run(OPEN + CLASSES + both + more, tmp_path / "store", directory=tmp_path)
    assert " needs Other, Plain of the script" in warned


def test_a_class_that_changed_is_no_damage_either(make: Make) -> None:
    """The bytes are as they were signed; it is the code that differs."""
    manager = make()
    manager.store("k", Changed(), "cold")
    Changed.grown = True
    try:
        with pytest.raises(UnsupportedTypeError, match=r"'k'.*too small"):
            manager.retrieve("k")
    finally:
        Changed.grown = False
    assert 1 == manager.retrieve("k").a


class Changed:
    """Once it has grown, it refuses what it once gave."""

    grown = False

    def __init__(self) -> None:
        self.a = 1

    def __setstate__(self, state: dict[str, int]) -> None:
        if self.grown:
            raise ValueError("too small")
        self.__dict__.update(state)


def test_a_module_that_lost_a_class_is_named(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The class was renamed since, or the module cannot be imported any more."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "vanishing.py").write_text("class Thing: pass\n")
    import vanishing  # type: ignore[import-not-found]

    manager = make()
    manager.store("k", vanishing.Thing(), "cold")
    del vanishing.Thing
    with pytest.raises(UnsupportedTypeError, match=r"'k'.*vanishing\.Thing.*not there"):
        manager.retrieve("k")
    del sys.modules["vanishing"]
    (tmp_path / "vanishing.py").write_text("raise RuntimeError('out of order')\n")
    with pytest.raises(UnsupportedTypeError, match=r"'k'.*vanishing\.Thing.*out of order"):
        manager.retrieve("k")


HOMELESS = f"""{OPEN}
import os, pwd
os.environ.pop("HOME", None)
for name in [name for name in os.environ if name.startswith("XDG_")]:
    del os.environ[name]
def unknown(uid):
    raise KeyError(uid)
pwd.getpwuid = unknown  # As in a container that runs under a number without a name.
from memories.errors import MemoriesError
class Plain: pass
def attempt(name, call):
    try:
        print(name, call())
    except Exception as error:
        print(name, isinstance(error, MemoriesError), type(error).__name__, error)
manager = MemoryManager("5MB", "5MB", "50MB")
attempt("typed", lambda: manager.store("k", [1, "a"], "cold") or manager.retrieve("k"))
attempt("pickled", lambda: manager.store("p", Plain(), "cold"))
attempt("path", lambda: MemoryManager("5MB", "5MB", "50MB", storage_path="~/store"))
attempt("bucket", lambda: MemoryManager("5MB", "5MB", "50MB", 1, glacier_url="~/archive"))
os.environ["MEMORIES_KEY_FILE"] = sys.argv[1] + "/key"
with MemoryManager("5MB", "5MB", "50MB") as again:
    attempt("keyed", lambda: again.store("p", Plain(), "cold"))
manager.cleanup()
print("left", os.listdir("."))
"""


def test_a_process_without_a_home_works_and_says_what_it_lacks(tmp_path: Path) -> None:
    """A container often runs under a number that has neither HOME nor a name."""
    (tmp_path / "here").mkdir()
    said = run(
        f"import os; os.chdir({str(tmp_path / 'here')!r}){HOMELESS}", tmp_path, directory=tmp_path
    )[0]
    lines = dict(line.split(" ", 1) for line in said.splitlines())
    assert "[1, 'a']" == lines["typed"]
    assert lines["pickled"].startswith("True StorageError")
    assert "MEMORIES_KEY_FILE" in lines["pickled"]
    assert lines["path"].startswith("True InvalidOptionError")
    assert lines["bucket"].startswith("True InvalidOptionError")
    assert "None" == lines["keyed"]
    assert "[]" == lines["left"]
