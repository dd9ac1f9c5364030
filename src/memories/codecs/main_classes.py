"""Warn about values that need classes of the running script, `__main__`.

The same script can read such values when it runs again, but no other program can. A manager whose
store outlives the process collects the names of these classes while it encodes, and warns.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from memories.foundation.warn_caller import warn_caller

SCRIPTS = ("__main__", "__mp_main__")  # The second is the name in a spawned process.
_warned: set[str] = set()


def is_main_class(kind: type) -> bool:
    """Return whether a class was defined by the script that runs."""
    return kind.__module__ in SCRIPTS


class _Collector(threading.local):
    """The names collected by a thread; None outside of `collect_names`."""

    names: set[str] | None = None


_named = _Collector()


@contextmanager
def collect_names() -> Iterator[set[str]]:
    """Collect the names of the classes of the script that this thread encodes in the context."""
    names: set[str] = set()
    outer, _named.names = _named.names, names
    try:
        yield names
    finally:
        _named.names = outer


def record_names(names: Iterable[str]) -> None:
    """Record that a value being encoded needs these classes of the script."""
    if _named.names is not None:
        _named.names.update(names)


def warn_about(key: str, names: Iterable[str]) -> None:
    """Warn that a value in a store that outlives the process needs classes of the script.

    It warns once for each class.
    """
    new = sorted(set(names) - _warned)
    if not new:
        return
    warn_caller(
        f"the value of {key[:200]!r} needs {', '.join(new)} of the script that runs now "
        "(__main__): no other program can read it; move what it needs to a module"
    )
    _warned.update(new)


def explain_missing(module: str, name: str, error: Exception | None = None) -> str:
    """Return why a value that needs a class cannot be read, and what to do."""
    what = f"the stored value needs {module}.{name}, which is not there"
    if module in SCRIPTS:
        return (
            f"{what}: it was defined in the script that stored the value; read it from that "
            "script, or move the class to a module of its own, and store the value again"
        )
    if error is None:
        return f"{what}: import {module} before reading it, or register a codec for it"
    return f"{what} ({error}): install what it belongs to, in a version that has it"
