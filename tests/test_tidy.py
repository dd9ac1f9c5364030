"""The habits of this code base, kept by a test: layers, sizes, words and docstrings.

It reads the sources as syntax trees and imports nothing of the library.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(600)  # Each test reads all sources, on a busy machine, too.

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "memories"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 600
MAX_LINES_WITH_A_REASON = 800
LONG_REASON = re.compile(r"[Ll]onger than 600 lines because ")
MAX_ATTRIBUTES = 20
MAX_PARAMETERS = 15

# One row per layer, lowest first. A room is a package, or one of the few modules, directly under
# `memories`. A room imports from lower rows only, never from its own row or a higher one.
LAYERS = (
    ("errors", "_version", "compiled"),
    ("foundation",),
    ("progress", "sealing"),
    ("model",),
    ("codecs", "devices", "backends", "policies"),
    ("frames", "options", "simulate"),
    ("cluster",),
    ("engine",),
    ("migration", "snapshot"),
    ("observe",),
    ("core",),
    ("sharing",),
    ("caching",),
    ("__init__",),
    ("testing", "integrations"),
    (
        "aio",
        "diskcache",
        "dask",
        "django",
        "dogpile",
        "fsspec",
        "joblib",
        "key_value",
        "langchain",
        "torch",
        "xarray",
        "zarr",
    ),
    ("cli",),
    ("__main__",),
)
RANK = {room: rank for rank, row in enumerate(LAYERS) for room in row}

# Loaded at their first use, for each of them costs tens of milliseconds or may be missing.
HEAVY = {
    "asyncio", "boto3", "click", "cryptography", "cupy", "dask", "distributed", "h5py", "isal",
    "django", "dogpile", "key_value", "langchain_core",
    "jax", "joblib", "matplotlib", "multiprocessing", "numcodecs", "obstore", "pandas",
    "platformdirs",
    "polars", "pyarrow", "opentelemetry", "prometheus_client",
    "redis", "rich", "scipy", "starlette", "torch", "uvicorn", "xarray", "zarr",
    "arro3", "duckdb", "geopandas", "nanoarrow", "PIL", "pyproj", "rasterio", "shapely", "sparse",
}  # fmt: skip

# Base classes with one subclass in the package, and why each is one.
LONE_BASES: dict[str, str] = {
    "AsyncMemoryManager": "programs make it; the package itself does not",
    "KeyCalls": "the public class would be longer than 800 lines with them",
    "ShortWays": "it can be compiled, and the public class under it cannot",
}
# Classes that may have more attributes and constructor parameters: the public face.
WIDE = {
    "MemoryManager": "its options are what a user chooses from",
    "DistributedMemoryManager": "its options are those and the ones of the nodes",
    "ManagerOptions": "the type of those options",
}
# Rooms whose modules are loaded by name, when they are first needed.
LOADED_BY_NAME = ("codecs.types", "cli")
# Modules with one importer that no test uses alone, and why they are modules of their own.
ONLY_FOR_ONE = {
    "backends.bucket.availability": "a state machine; tests/faults/test_archive_away.py drives it",
    "backends.bucket.maintenance": "the background threads, apart from the calls of a user",
    "backends.bucket.multipart_cleanup": "requests that only S3 has, and that need signing",
    "backends.bucket.staged_reader": "what another process reads of the writer's database",
    "cluster.inspect": "the command `memories cluster status`, without a manager",
    "cluster.quorum.rebalance": "a step of the protocol; tests/nodes/test_members.py runs it",
    "integrations.torch.iterable": "it needs torch when it is loaded",
    "integrations.diskcache.persistent": "the collections over a cache; `memories.diskcache`",
    "integrations.diskcache.recipes": "the recipes over a cache; `memories.diskcache`",
    "cluster.quorum.service": "one of two topologies, chosen when the nodes are known",
    "cluster.quorum.unanimous_write": "a step of the protocol; it needs real servers",
    "cluster.valkey_cluster.registers": "one of two topologies; it needs real servers",
    "cluster.valkey_cluster.service": "one of two topologies, chosen when the nodes are known",
    "sharing.client": "one of two parts of a process; it needs a writer in another process",
    "core.array_interop": "conversions between array libraries, apart from the options",
    "core.dashboard_source": "the one place where the dashboard meets a manager",
    "core.store_check": "the public `check`, with a thread and a result of its own",
    "engine.batch_read": "an algorithm of its own; tests of `retrieve_many` drive it",
    "engine.device_payload": "one form of payload; tests/unit/devices drive it",
    "engine.mover": "one move; `hierarchy` and it would be longer than 800 lines together",
}

WORDS = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
MACHINE_PATHS = re.compile(r"/(?:wo" r"rk|ro" r"ot|ho" r"me|Us" r"ers)/\w")


def name_of(path: Path) -> str:
    """Return how a failing test should call a module."""
    return str(path.relative_to(ROOT))


def room_of(path: Path) -> str:
    """Return the room a module belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def module_of(path: Path) -> str:
    """Return the dotted name of a module."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree_of(path: Path) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse(path.read_text("utf-8"), str(path))


def imported_by(path: Path) -> Iterator[tuple[str, int]]:
    """Yield every module named in an import, wherever it stands, `TYPE_CHECKING` included."""
    yield from imports_of(tree_of(path), ["memories", *path.relative_to(PACKAGE).parts[:-1]])


def imports_of(tree: ast.Module, package: list[str]) -> Iterator[tuple[str, int]]:
    """Yield every module named in an import of a module that lies in `package`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)


def rooms_used_by(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the rooms of this package that a module imports from."""
    for module, line in imported_by(path):
        first, *rest = module.split(".")
        if first == "memories":
            yield (rest[0] if rest and rest[0] in RANK else "__init__"), line


def test_imports_point_down_only() -> None:
    """A layer that knows one above it can be neither read nor tested by itself."""
    wrong = [
        f"{name_of(path)}:{line} imports {used}"
        for path in MODULES
        for used, line in rooms_used_by(path)
        if used != room_of(path) and RANK[used] >= RANK[room_of(path)]
    ]
    assert [] == wrong


def test_every_room_has_its_layer() -> None:
    """A new room is placed on purpose, in the table above and in ARCHITECTURE.md."""
    rooms = {room_of(path) for path in MODULES}
    assert set() == rooms - set(RANK)


def circle_in(arrows: dict[str, set[str]]) -> list[str]:
    """Return the nodes of a graph that lead back to themselves."""
    while leaves := [one for one, targets in arrows.items() if not targets & arrows.keys()]:
        for leaf in leaves:
            del arrows[leaf]
    return sorted(arrows)


@pytest.mark.parametrize("depth", [3, 4, 5])
def test_modules_of_a_room_import_in_no_circle(depth: int) -> None:
    """Two modules that need each other cannot be read one by one; nor can two packages."""
    known = {module_of(path) for path in MODULES}
    arrows: dict[str, set[str]] = {}
    for path in MODULES:
        here = ".".join(module_of(path).split(".")[:depth])
        for name, _ in imported_by(path):
            module = name if name in known else name.rpartition(".")[0]
            there = ".".join(module.split(".")[:depth])
            if there != here and there.count(".") >= 2 <= here.count("."):
                arrows.setdefault(here, set()).add(there)
    assert [] == circle_in(arrows)


def test_the_two_kinds_of_replication_do_not_know_each_other() -> None:
    """What both need lies in `cluster` itself."""
    wings = [PACKAGE / "cluster" / name for name in ("quorum", "valkey_cluster")]
    for wing, other in (wings, reversed(wings)):
        used = {name for path in wing.rglob("*.py") for name, _ in imported_by(path)}
        assert not [name for name in used if name.startswith(module_of(other))]


def test_frames_know_five_modules_of_the_codecs() -> None:
    """The byte format must be readable without a look at any family of types."""
    allowed = {
        f"memories.codecs.{name}" for name in ("arrays", "base", "buffers", "dtypes", "registry")
    }
    used = {name for path in (PACKAGE / "frames").rglob("*.py") for name, _ in imported_by(path)}
    codecs = {name for name in used if name.startswith("memories.codecs")}
    assert not [name for name in codecs if not {name, name.rpartition(".")[0]} & allowed]


def test_no_module_is_too_long_to_read_at_once() -> None:
    """A long module needs a reason, `long because ...` in its head; every giant file had none."""
    lines = {name_of(path): path.read_text("utf-8").count("\n") for path in MODULES}
    assert {} == {
        name_of(path): lines[name_of(path)] for path in MODULES if lines[name_of(path)] > most(path)
    }


def most(path: Path) -> int:
    """Return how many lines a module may have."""
    head = " ".join((ast.get_docstring(tree_of(path)) or "").split())
    return MAX_LINES_WITH_A_REASON if LONG_REASON.search(head) else MAX_LINES


@cache
def classes() -> dict[str, list[tuple[Path, ast.ClassDef]]]:
    """Return every class of the package by its name."""
    found: dict[str, list[tuple[Path, ast.ClassDef]]] = {}
    for path in MODULES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append((path, node))
    return found


def bases_of(node: ast.ClassDef) -> list[str]:
    """Return the names of a class's bases, without module and type arguments."""
    return [ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases]


@cache
def made() -> set[str]:
    """Return the name of everything that is called, or handed on to be called."""
    names: set[str] = set()
    for path in MODULES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call):
                given = [node.func, *node.args, *(keyword.value for keyword in node.keywords)]
                names.update(ast.unparse(one).split(".")[-1] for one in given)
    return names


def is_error(name: str) -> bool:
    """Return whether a class is an exception: those differ in their names, and have no code."""
    return name.endswith("Error") or name in {"Exception", "BaseException", "UserWarning"}


def test_no_base_class_has_a_single_subclass() -> None:
    """It splits one class over two files, and its reader must hold both open.

    A class that is also made for itself is no base class but a class with a variant.
    """
    below: dict[str, list[str]] = {}
    for name, places in classes().items():
        for _, node in places:
            for base in bases_of(node):
                below.setdefault(base, []).append(name)
    lone = {
        base: subclasses[0]
        for base, subclasses in below.items()
        if base in classes() and len(subclasses) == 1 and base not in made()
        if not is_error(base) and "Protocol" not in bases_of(classes()[base][0][1])
    }
    assert LONE_BASES == {base: LONE_BASES.get(base, f"of {lone[base]}") for base in lone}


def attributes_of(node: ast.ClassDef) -> set[str]:
    """Return the attributes that a class declares, or sets in any of its methods."""
    names = {
        one.target.id
        for one in node.body
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
        if "ClassVar" not in ast.unparse(one.annotation)
    }
    return names | {
        one.attr
        for one in ast.walk(node)
        if isinstance(one, ast.Attribute) and isinstance(one.ctx, ast.Store)
        if isinstance(one.value, ast.Name) and one.value.id == "self"
    }


def parameters_of(node: ast.ClassDef) -> int:
    """Return how many parameters a class's own constructor has."""
    for one in node.body:
        if isinstance(one, ast.FunctionDef) and one.name == "__init__":
            arguments = one.args
            return len(arguments.posonlyargs + arguments.args + arguments.kwonlyargs) - 1
    return 0


def test_no_class_is_a_bag_of_everything() -> None:
    """A class of thirty attributes is several classes without drawn borders."""
    sizes = {
        f"{name} of {path.relative_to(PACKAGE).as_posix()}": (
            len(attributes_of(node)),
            parameters_of(node),
        )
        for name, places in classes().items()
        for path, node in places
        if name not in WIDE
    }
    wide = {
        name: size
        for name, size in sizes.items()
        if size[0] > MAX_ATTRIBUTES or size[1] > MAX_PARAMETERS
    }
    assert {} == wide
    assert set() == WIDE.keys() - classes().keys()


@cache
def names_of_modules() -> frozenset[str]:
    """Return the dotted names of all modules of the package."""
    return frozenset(module_of(path) for path in MODULES)


def modules_in(names: Iterable[str]) -> set[str]:
    """Return the modules of the package that are, or hold, the given dotted names."""
    known = names_of_modules()
    found = set()
    for name in names:
        while name not in known and "." in name:
            name = name.rpartition(".")[0]
        found.add(name)
    return found & known


def used_by(path: Path) -> set[str]:
    """Return the modules that a test, a benchmark or another module imports."""
    if path.is_relative_to(PACKAGE):
        return modules_in(name for name, _ in imported_by(path))
    tree = ast.parse(path.read_text("utf-8"))  # Looked at once: so many trees take much memory.
    return modules_in(name for name, _ in imports_of(tree, []))


def test_a_module_serves_several_or_has_a_test_of_its_own() -> None:
    """A module that only one other uses, and that no test uses alone, is a part of that other."""
    users: dict[str, set[Path]] = {module_of(path): set() for path in MODULES}
    for path in MODULES:
        for name in used_by(path) - {module_of(path)}:
            users[name].add(path)
    files = list((ROOT / "tests").rglob("test_*.py"))
    tested = {name for path in files for name in used_by(path)}
    themes = " ".join(path.stem for path in files)
    parts = {
        name
        for name, paths in users.items()
        if len(paths) == 1 and name not in tested and name.rpartition(".")[2] not in themes
        if not {path.name for path in paths} & {"__init__.py", "registry.py"}  # Given out there.
        if not any(name.startswith(f"memories.{room}.") for room in LOADED_BY_NAME)
        if not (PACKAGE.parent / name.replace(".", "/")).is_dir()  # The `__init__` of a room.
    }
    assert sorted(ONLY_FOR_ONE) == sorted(name.removeprefix("memories.") for name in parts)


def imports_at_load(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports that run when a module is loaded, not those under `TYPE_CHECKING`."""
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.dump(node.test):
            yield from imports_at_load(node.body + node.orelse)
        elif isinstance(node, ast.Try):
            yield from imports_at_load(node.body)


def packages_at_load(path: Path) -> set[str]:
    """Return the packages that are loaded with a module."""
    return {
        name.split(".")[0]
        for node in imports_at_load(tree_of(path).body)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
        )
    }


def test_heavy_packages_are_imported_where_they_are_used() -> None:
    """A module-level import of an optional package breaks, or slows, users who do not need it."""
    free = {"cli", "__main__", "integrations"}
    heavy = {
        name_of(path): packages_at_load(path) & HEAVY
        for path in MODULES
        if room_of(path) not in free
    }
    assert {} == {name: found for name, found in heavy.items() if found}


@cache
def calls_in(path: Path) -> list[tuple[str, int, ast.Call]]:
    """Return every call of a module: the dotted name of what is called, and the line."""
    calls = (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call))
    return [(ast.unparse(node.func), node.lineno, node) for node in calls]


def test_only_the_command_line_prints() -> None:
    """A library that prints cannot be used by a program that owns its output."""
    library = [path for path in MODULES if room_of(path) != "cli"]
    assert [] == [
        f"{name_of(path)}:{line}"
        for path in library
        for name, line, _ in calls_in(path)
        if name == "print"
    ]


def clocks_for(path: Path) -> set[str]:
    """Return the clocks that a module must not read."""
    shown = {"cli", "testing", "dashboard"}
    if path.name == "clock.py" or shown & set(path.relative_to(PACKAGE).parts):
        return set()
    clocks = {"time.time", "time.time_ns", "datetime.now", "datetime.datetime.now"}
    if room_of(path) in {"backends", "cluster"}:  # They limit their waits, which are real ones.
        return clocks
    return clocks | {"time.monotonic"}


def test_only_the_clock_asks_for_the_time() -> None:
    """Time is injected: what depends on it can then be tested, and never runs backwards."""
    assert [] == [
        f"{name_of(path)}:{line}: {name}"
        for path in MODULES
        for name, line, _ in calls_in(path)
        if name in clocks_for(path)
    ]


def swallows(handler: ast.ExceptHandler) -> bool:
    """Return whether a handler catches everything and says nothing about it."""
    broad = handler.type is None or ast.unparse(handler.type) in {"Exception", "BaseException"}
    silent = all(isinstance(node, (ast.Pass, ast.Continue)) for node in handler.body)
    return handler.type is None or (broad and silent)


def test_no_fault_is_swallowed() -> None:
    """A fault that is not reported comes back as wrong data."""
    silent = [
        f"{name_of(path)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ExceptHandler) and swallows(node)
    ]
    silent += [
        f"{name_of(path)}:{line}"
        for path in MODULES
        for name, line, call in calls_in(path)
        if name.endswith("suppress")
        and {"Exception", "BaseException"} & {ast.unparse(argument) for argument in call.args}
    ]
    assert [] == silent


# What waits, or makes others wait, where an interrupt in the main thread leaves a lock taken, where
# a thread that died is awaited for ever, or where another process decides how long.
ENDLESS = re.compile(
    r"threading\.(?:Event|Condition|Semaphore|BoundedSemaphore|Barrier|Timer|Thread)\b"
    r"|\b(?:Simple)?Queue\(\)\.get|fcntl\.lockf|ThreadPoolExecutor|LOCK_EX(?! \| fcntl\.LOCK_NB)"
)
# File and what it may use; what is said in docs/decisions/048 tells why.
BOUNDED = {
    "foundation/periodic.py": {"threading.Thread"},  # `BackgroundThread` is one.
    "sharing/computation_locks.py": {"fcntl.lockf"},  # Always with `LOCK_NB`, or to unlock.
    "testing/backends.py": {"threading.Thread"},  # Of the program that proves a backend.
    "testing/codecs.py": {"threading.Thread"},
    "snapshot/atomicfile.py": {"LOCK_EX"},  # Of a file whose name no other process has.
}


def test_no_wait_is_without_an_end() -> None:
    """A thread that waits for a dead thread waits for ever; see docs/decisions/048."""
    waits = {}
    for path in MODULES:
        code = code_of(path)
        found = {match.group() for match in ENDLESS.finditer(code)}
        found -= {"threading.Thread"} if not re.search(r"threading\.Thread\(", code) else set()
        waits[name_of(path)] = found - BOUNDED.get(path.relative_to(PACKAGE).as_posix(), set())
    assert {} == {name: found for name, found in waits.items() if found}


def test_a_fork_hook_is_registered_once_per_module() -> None:
    """A hook cannot be removed: one for each instance would outlive all of them."""
    at_load = {
        id(node.value)
        for path in MODULES
        for node in tree_of(path).body
        if isinstance(node, ast.Expr)
    }
    assert [] == [
        f"{name_of(path)}:{line}"
        for path in MODULES
        for name, line, call in calls_in(path)
        if name == "after_fork" and id(call) not in at_load
    ]
    hooks = {path for path in MODULES if "register_at_fork" in code_of(path)}
    assert {PACKAGE / "foundation" / "forks.py"} == hooks


@cache
def code_of(path: Path) -> str:
    """Return the text of a module, without comments and with empty strings."""

    class Mute(ast.NodeTransformer):
        def visit_Constant(self, node: ast.Constant) -> ast.Constant:
            return ast.Constant("") if isinstance(node.value, str) else node

    tree = Mute().visit(ast.parse(path.read_text("utf-8")))
    return ast.unparse(ast.fix_missing_locations(tree))


def public(nodes: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Yield every public class, function and method, however deep its class."""
    for node in nodes:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if node.name.startswith("_"):
                continue
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{prefix}{node.name}.")


def is_overload(node: ast.AST) -> bool:
    """Return whether a function is only one of the signatures of another."""
    return any("overload" in ast.unparse(one) for one in getattr(node, "decorator_list", []))


def test_a_public_class_name_stands_for_one_thing() -> None:
    """`Writer._write` in a traceback must not be a lease in one case and a log in another."""
    names = Counter(
        node.name
        for path in MODULES
        for node in tree_of(path).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert {} == {name: count for name, count in names.items() if count > 1}


def test_every_public_name_has_a_docstring() -> None:
    """What is not said in one sentence has not been thought through."""
    undocumented = [
        f"{name_of(path)}: {name}"
        for path in MODULES
        for name, node in public(tree_of(path).body)
        if not ast.get_docstring(node) and not is_overload(node)  # type: ignore[arg-type]
    ]
    assert [] == undocumented
    assert [] == [
        name_of(path)
        for path in MODULES
        if path.stat().st_size and not ast.get_docstring(tree_of(path))
    ]


def texts() -> list[Path]:
    """Return every file of the repository that people read."""
    kinds = {".py", ".md", ".toml", ""}
    folders = ("src", "tests", "examples", "benchmarks", "days", "docs", ".ci")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    files += [path for path in ROOT.iterdir() if path.is_file() and path.name != ".git"]
    return sorted(path for path in files if path.suffix in kinds)


def test_no_loose_ends_and_no_path_of_one_machine() -> None:
    """A note to oneself belongs into an issue, and a path of one machine helps on no other."""
    assert [] == [
        f"{name_of(path)}:{number}: {line}"
        for path in texts()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if WORDS.search(line) or MACHINE_PATHS.search(line)
    ]


# What may lie at the top of the repository; a store that a test left there may not.
TOP = {
    ".ci", ".github", ".gitignore", ".pre-commit-config.yaml", "ARCHITECTURE.md", "CHANGELOG.md",
    "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "SECURITY.md", "benchmarks",
    "changes", "compile_core.py", "days", "docs",
    "examples", "hatch_build.py", "pyproject.toml", "src", "tests",
}  # fmt: skip


def test_nothing_else_lies_at_the_top() -> None:
    """A store left in the working directory must not be committed with the code."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout, so the tracked files are unknown")
    assert set() == {line.split("/")[0] for line in listed.stdout.splitlines()} - TOP
