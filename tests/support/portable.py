"""A plugin of pytest that hides what only Linux has: `pytest -p tests.support.portable`.

It stands for another system as far as one can on Linux. Processes that tests start see all of it.
"""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest

HIDDEN = {
    os: (
        "memfd_create", "posix_fallocate", "posix_fadvise", "sched_getaffinity", "O_TMPFILE",
        "fdatasync",
    ),
    socket: ("SO_PEERCRED",),
}  # fmt: skip
NOWHERE = Path("/there/is/no/such/directory")

tempfile._O_TMPFILE_WORKS = False  # type: ignore[attr-defined]
for module, names in HIDDEN.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
        if name in module.__all__:  # Trio copies what is listed.
            module.__all__.remove(name)

# Before any other module takes them from there.
from memories.foundation import system  # noqa: E402

system.PROC = system.CGROUPS = NOWHERE
system.c_function = lambda name: None  # type: ignore[assignment]
system.clone_file = lambda source, target: False

# Tests of what is not to be had there, and why.
ELSEWHERE = {
    "test_another_user_is_not_answered": "the user at the other end is unknown",
    "test_a_directory_with_a_long_path": "there is no short path to a directory",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip those tests."""
    for item in items:
        reason = ELSEWHERE.get(getattr(item, "originalname", item.name))
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
