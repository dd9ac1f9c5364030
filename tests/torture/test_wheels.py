"""The wheels: compiled for one platform where a compiler is, pure otherwise, never a failure."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

pytestmark = [pytest.mark.torture, pytest.mark.timeout(900)]

USE = """
import memories, numpy
from memories import MemoryManager, compiled
with MemoryManager(0.001, 0.001, 0.001) as manager:
    for key, value in {"a": b"x", "b": numpy.arange(4), "c": {"d": [1]}}.items():
        manager.store(key, value)
        for _ in range(6):
            got = manager.retrieve(key)
        manager.migrate(key, "cold")
        manager[key]
        manager.delete(key)
print(memories.__file__, compiled.core())
"""
FAILING = "#!/bin/sh\necho 'out of memory: the compiler was killed' >&2\nexit 1\n"


def run(command: list[object], **environment: str) -> str:
    """Run a program and return what it prints."""
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, "PYTHONPATH": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",
        timeout=600,
    )
    assert 0 == done.returncode, done.stdout
    return done.stdout


@pytest.fixture
def source(repository: Path, tmp_path: Path) -> Path:
    """Return a copy of the sources in which nothing was compiled."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True)
    if listed.returncode:
        pytest.skip("not a git checkout, so the files of the source are unknown")
    copy = tmp_path / "source"
    for name in filter(None, os.fsdecode(listed.stdout).split("\0")):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(repository / name, copy / name)
    return copy


def wheel_of(source: Path, **environment: str) -> tuple[Path, str]:
    """Build a wheel; return it and what the build said."""
    made = source.parent / "wheels"
    said = run(
        [sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "-w", made, source], **environment
    )
    [wheel] = made.glob("*.whl")
    return wheel, said


def used(wheel: Path) -> str:
    """Install a wheel into an environment of its own, use it, and return what it says."""
    home = wheel.parent.parent / "environment"
    venv.create(home, with_pip=True)
    run([home / "bin" / "python", "-m", "pip", "install", "--quiet", wheel])
    said = run([home / "bin" / "python", "-W", "error", "-c", USE])
    assert said.startswith(str(home))
    return said.rsplit(" ", 1)[1].strip() if "interpreted" not in said else "interpreted"


def libraries(wheel: Path) -> list[str]:
    """Return the extension modules in a wheel."""
    return [name for name in ZipFile(wheel).namelist() if name.endswith(".so")]


def test_a_compiled_wheel_is_for_one_platform(source: Path) -> None:
    """It holds every compiled module, and runs them."""
    wheel, _ = wheel_of(source, MEMORIES_INTERPRETED="0")
    assert not wheel.name.endswith("-none-any.whl")
    assert len(libraries(wheel)) > 1
    assert "compiled" == used(wheel)


def test_a_pure_wheel_is_for_every_platform(source: Path) -> None:
    """It holds the same sources, and no library."""
    wheel, _ = wheel_of(source, MEMORIES_INTERPRETED="1")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert [] == libraries(wheel)
    assert "interpreted" == used(wheel)


def test_a_compiler_that_fails_fails_no_installation(source: Path, tmp_path: Path) -> None:
    """The build says why, and the wheel is pure."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("cc", "gcc", "clang", "x86_64-linux-gnu-gcc"):
        (programs / name).write_text(FAILING)
        (programs / name).chmod(0o755)
    wheel, said = wheel_of(source, PATH=f"{programs}:{os.environ['PATH']}", CC="cc")
    assert "the core will run interpreted" in said
    assert "the compiler was killed" in said
    assert wheel.name.endswith("-py3-none-any.whl")
    assert [] == libraries(wheel)
