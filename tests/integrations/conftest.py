"""Runs the coroutines among the tests of a host, each in an event loop of its own."""

from __future__ import annotations

import asyncio
import inspect

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Know the marks of the tests of hosts."""
    config.addinivalue_line("markers", "thread_unsafe: a mark of joblib's tests")
    config.addinivalue_line("markers", "time_intensive: a mark of dogpile's tests")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine function that no plugin runs; pytest itself would not."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj) or pyfuncitem.get_closest_marker("anyio"):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True
