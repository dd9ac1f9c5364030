"""A private file system in a file, for tests that damage it as no shared one may be damaged."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest


class Mounted(NamedTuple):
    """A file system: the file it lies in, and where it is mounted."""

    disk: Path
    mount: Path


def mounted(tmp_path: Path, kind: str) -> Mounted:
    """Make and mount a file system of 400 MiB; skip where that cannot be done."""
    make = shutil.which(f"mkfs.{kind}")
    if os.geteuid() != 0 or make is None:
        pytest.skip(f"needs root and mkfs.{kind}")
    disk, mount = tmp_path / "disk", tmp_path / "mount"
    with disk.open("wb") as file:
        file.truncate(400 << 20)
    mount.mkdir()
    subprocess.run([make, "-q", str(disk)], check=True, capture_output=True)
    done = subprocess.run(["mount", "-o", "loop", str(disk), str(mount)], capture_output=True)
    if done.returncode:
        pytest.skip(f"loop mounts do not work here: {done.stderr.decode().strip()}")
    return Mounted(disk, mount)


def mounted_in_ram(tmp_path: Path, size: int) -> Path:
    """Mount a file system of `size` bytes that lies in RAM; skip where that cannot be done."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    mount = tmp_path / "mount"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(mount)]
    done = subprocess.run(command, capture_output=True)
    if done.returncode:
        pytest.skip(f"mounts do not work here: {done.stderr.decode().strip()}")
    return mount


def unmount(mount: Path) -> None:
    """Unmount all that is mounted there; what is still mapped keeps it for as long as it lives."""
    gc.collect()
    subprocess.run(["umount", "--all-targets", "--lazy", str(mount)], capture_output=True)
