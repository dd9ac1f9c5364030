"""Identifies a function by its code and by what it refers to, for the keys of its results.

What a function refers to is checked again before each call: a constant may have been replaced, or a
list have grown. Changes while the function runs, of a counter for example, are attributed to the
function itself and do not change its identity.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakSet

from memories.codecs.digests import hash_all
from memories.codecs.function_code import place_of
from memories.codecs.function_hash import HashWalk, Variable
from memories.codecs.main_classes import SCRIPTS
from memories.core.single_flight import Computation, dead_among
from memories.errors import UnsupportedTypeError
from memories.foundation.fork_lock import new_lock

_MAX_NAME = 200  # Characters of a name in the keys of results.


class Identity:
    """The identity of one callable; with a version its code is left out.

    Attributes:
        label: Module and qualified name, for messages and keys.
        place: A hash of the file and the qualified name.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        version: int | str | None,
        ignore: Iterable[str] = (),
        unread: Iterable[str] = (),
    ) -> None:
        self._function = function
        self._version = version
        self._ignore = frozenset(ignore)  # Variables that the function reads.
        self._unread = frozenset(unread)  # Parameters of the function.
        self._lock = new_lock()
        self._computing = new_lock()  # Taken before `_lock`.
        self._running: WeakSet[Computation] = WeakSet()  # The calls in progress.
        self._known_digests: dict[tuple[int, str], tuple[bytes, bytes]] = {}
        self._cached: tuple[str, list[Variable], list[Variable]] | None = None
        defined = definition_of(function)
        module = getattr(defined, "__module__", None)
        name = getattr(defined, "__qualname__", type(defined).__qualname__)
        namespace = getattr(defined, "__globals__", {"__name__": module})
        self.label = f"{_module_name(namespace, module)}.{name}"[:_MAX_NAME]
        place = (place_of(namespace).encode("utf-8", "surrogateescape"), self.label.encode())
        self.place = hash_all(b"place", place).hex()[:16]

    def text(self) -> str:
        """Return a text that identifies the present version of the function.

        Raises:
            UnsupportedTypeError: something that it refers to has no hash.
        """
        text = self._cached_text()
        if text is None:
            # Thread 1 computes the text. Thread 2 waits for that, because thread 1 then runs the
            # function, which may change what thread 2 would hash.
            with self._computing:
                text = self._cached_text()
                if text is None:
                    text = self._compute()
        return text

    def enter(self, computation: Computation) -> None:
        """Record that a call of the function starts."""
        with self._lock:
            if self._running:
                for other in dead_among(self._running):
                    self._running.discard(other)
            self._running.add(computation)

    def leave(self, computation: Computation) -> None:
        """Record that a call has ended, and accept what changed during it. Idempotent."""
        with self._lock:
            if computation not in self._running:
                return
            self._running.discard(computation)
            if self._running or self._cached is None:
                return
        for variable in self._cached[2]:
            mark = _mark_of(variable)
            if mark != variable.mark:
                variable.mark = mark
                self._known_digests[variable.key] = (mark, variable.digest)

    def _cached_text(self) -> str | None:
        """Return the text that was computed last, unless what the function refers to changed."""
        cached = self._cached
        if cached is None or _has_any_changed(cached[1]):
            return None
        # Asked again: a call may have started in between, and changed something.
        if not self._running and _has_any_changed(cached[2]) and not self._running:
            return None
        return cached[0]

    def _compute(self) -> str:
        walk = HashWalk(
            code=self._version is None,
            ignore=self._ignore,
            unread=self._unread,
            known=self._known_digests,
        )
        digest = walk.root(self._function).hex()
        text = digest if self._version is None else f"{self._version}-{digest}"
        variables = walk.variables.values()
        steady = [variable for variable in variables if variable.steady]
        moving = [variable for variable in variables if not variable.steady]
        for variable in moving:
            if not (variable.fixed or variable.empty):  # Its hash is enough; it may be large.
                variable.value = None
        self._cached = text, steady, moving
        return text


def _has_any_changed(variables: list[Variable]) -> bool:
    for variable in variables:  # noqa: SIM110 - a generator takes longer than most of the list.
        if variable.has_changed():
            return True
    return False


def definition_of(function: Any) -> Any:
    """Return the function under wrappers, partial calls and methods."""
    while True:
        inner = inspect.unwrap(function)
        inner = inner.func if isinstance(inner, partial) else getattr(inner, "__func__", inner)
        if inner is function:
            return inner
        function = inner


def _module_name(namespace: Mapping[str, Any], module: str | None) -> str | None:
    """Return the name of a module; of a script the name that it has when it is imported.

    A script, its import by another program, and its workers share their results.
    """
    file = namespace.get("__file__")
    if module in SCRIPTS and isinstance(file, str):
        return Path(file).stem
    return module


def _mark_of(variable: Variable) -> bytes:
    try:
        return variable.current_mark()
    except UnsupportedTypeError:
        return b""  # It has no hash any more: the next call of `text` raises.
