"""What every test shares: a private home for keys and settings, and the profile of hypothesis.

No fixture here replaces a part of the library by a double: those live in `memories.testing`.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tests.support import descriptors
from tests.support.buckets import seaweed

from memories.compiled import INTERPRETED, core
from memories.foundation.logging import RateLimit, logger

REPOSITORY = Path(__file__).resolve().parent.parent

# Files that take half a minute or more, each in one worker.
LONGEST = (
    "test_demo.py", "test_days.py", "test_docs.py", "test_both_ways.py", "test_interrupts.py",
    "test_interrupted_calls.py", "test_cluster_faults.py", "test_far_nodes.py",
    "test_linearizable_nodes.py", "test_soak.py", "test_composed_machine.py", "test_12_the_end.py",
    "test_hammer.py", "test_snapshot_small_values.py", "test_snapshot_damage.py",
)  # fmt: skip

# A slow machine is no failed test, and every run has the same examples: what a change breaks fails
# with that change. New examples each time are for `make torture`, which prints a failing one.
settings.register_profile(
    "memories",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("torture", settings.get_profile("memories"), derandomize=False)


def pytest_configure(config: pytest.Config) -> None:
    """Keep the tests' signing keys and settings away from the user's own.

    Set before any import of the library, and inherited by every process that a test starts.
    """
    settings.load_profile("torture" if config.option.markexpr == "torture" else "memories")
    home = tempfile.mkdtemp(prefix="memories-tests-")
    for name in [name for name in os.environ if name.startswith("MEMORIES_")]:
        if name != INTERPRETED:
            del os.environ[name]
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        os.environ[name] = str(Path(home, name))
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # A shell started it in the background.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    descriptors.watch()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    """Stop the servers of this process, which may be killed before its exit handlers run."""
    seaweed.stop_shared()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep what stays until the end of the run away from the garbage collector.

    Half a million objects of imported packages and of the tests themselves would make each of
    thousands of full collections take a third of a second.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: at the end no worker then waits for another one."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(ranks)))


def pytest_report_header() -> str:
    """Say which core is tested."""
    return f"core: {core()}"


@pytest.fixture(scope="module", autouse=True)
def warnings_are_logged() -> Iterator[None]:
    """Log warnings that other tests have repeated until they were suppressed."""
    former = next(one for one in logger.filters if isinstance(one, RateLimit))
    logger.removeFilter(former)
    limit = RateLimit()
    logger.addFilter(limit)
    yield
    logger.removeFilter(limit)
    logger.addFilter(former)


@pytest.fixture(autouse=True)
def no_descriptor_is_closed_twice() -> Iterator[None]:
    """Fail with both places where a descriptor was closed."""
    yield
    found = descriptors.closed_twice[:]
    descriptors.closed_twice.clear()
    assert [] == found


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the root of the working tree."""
    return REPOSITORY
