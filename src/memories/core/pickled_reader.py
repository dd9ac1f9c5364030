"""Opens the store of a pickled manager for reading, in the process that unpickles it."""

from __future__ import annotations

from typing import Any


def open_reader(manager_class: type, *arguments: Any) -> Any:
    """Return a read-only manager of the store of a pickled one.

    If the store cannot be opened here, each use of the manager raises the reason. Unpickling must
    not raise it: a worker of `multiprocessing.Pool` would end without an answer, and the call in
    the other process would wait for ever.
    """
    hot, warm, cold, glacier, options = arguments
    options = {**options, "storage_options": options["storage_options"].options}
    try:
        return manager_class(hot, warm, cold, glacier, **options, read_only=True)
    except Exception as error:
        return unopened(manager_class, error)


def unopened(manager_class: type, error: Exception) -> Any:
    """Return a manager that could not be opened: each use of it raises `error`."""
    return type("UnopenedManager", (_Unopened, manager_class), {})(error)


def is_unopened(manager: object) -> bool:
    """Return whether each use of `manager` raises, because it could not be opened."""
    return isinstance(manager, _Unopened)


class _Unopened:
    """Comes before the class of the manager: none of the attributes of a manager are set."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") and not name.startswith("__") and name != "_error":
            raise self._error
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")

    def _refuse(self, *arguments: Any, **options: Any) -> Any:
        """Raise: nothing can be read or changed."""
        raise self._error

    # These may be compiled, and then do not ask `__getattr__` for what is not set.
    retrieve = store = delete = exists = __getitem__ = _refuse

    def __enter__(self) -> Any:
        return self  # Its `with` block raises the reason where it uses the manager.

    def __repr__(self) -> str:
        return f"<MemoryManager not opened: {self._error}>"

    def cleanup(self, *, flush: bool = True) -> None:
        """Do nothing: nothing is open."""
