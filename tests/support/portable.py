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

# Tests of what is not to be had there, and why; of some only a few of their parameters.
NAMELESS = "no file can be made without a name"
BOOTED = "whether the machine was started anew is unknown"
ELSEWHERE = {
    "test_another_user_is_not_answered": "the user at the other end is unknown",
    "test_a_directory_with_a_long_path": "there is no short path to a directory",
    "test_worker_processes_fit_with_the_same_store": "there is no short path to a directory",
    "test_the_charts_begin_with_the_series_so_far": "the resident memory is unknown",
    "test_any_failing_call_leaves_the_old_snapshot[5-link]": NAMELESS,
    "test_any_failing_call_leaves_the_old_snapshot[28-link]": NAMELESS,
    "test_any_failing_call_leaves_the_old_snapshot[122-link]": NAMELESS,
    "test_bytes_are_durable_before_their_name_and_the_name_before_the_end": NAMELESS,
    "test_file_systems_without_nameless_files_work_too": NAMELESS,
    "test_a_failing_disk_fails_the_restore_and_loses_nothing[fdatasync]": "there is fsync only",
    "test_a_dead_process_of_this_machine_is_known_to_be_dead": BOOTED,
    "test_what_a_killed_writer_was_uploading_is_aborted_at_the_next_opening[a fresh machine]": (
        BOOTED
    ),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip those tests."""
    for item in items:
        reason = ELSEWHERE.get(item.name, ELSEWHERE.get(getattr(item, "originalname", item.name)))
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
