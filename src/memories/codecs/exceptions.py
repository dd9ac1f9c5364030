"""Pickle exceptions by their content, with notes, cause and context, but without tracebacks.

An exception is restored by the constructor of its builtin base class, since the constructor of its
own class may need other arguments than those in `args`.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MemberDescriptorType, WrapperDescriptorType
from typing import Any

_MADE_BY_PYTHON = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class that was written in Python.
_HELD_BY_ALL = ("__cause__", "__context__", "__suppress_context__", "__notes__")
_NOT_PICKLED = ("name",)  # Attributes of some builtins that they do not give to pickle.


def reduce_exception(error: BaseException) -> Any:
    """Return what `__reduce_ex__` should, with the notes, cause and context of `error`."""
    made: Any = error.__reduce_ex__(5)
    if not isinstance(made, tuple) or len(made) > 3:
        return made  # Its class has a way of its own.
    maker, args = made[:2]
    plain = _is_plain(type(error))
    slots = _slots(type(error)) if plain else ()
    held = (*slots, *_HELD_BY_ALL)
    state = {
        "attributes": made[2] if len(made) > 2 else None,
        "held": {name: getattr(error, name) for name in held if hasattr(error, name)},
    }
    if plain:
        maker, args = together, (maker, args)
    return maker, args, state, None, None, finish


# The names of this module and of the two functions below are written into pickles: keep them.


def together(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """Return an exception of `kind`, running no constructor written in Python."""
    error: BaseException = _compiled(kind, "__new__")(kind, *args)
    _compiled(kind, "__init__")(error, *args)
    return error


def finish(error: BaseException, state: dict[str, Any]) -> None:
    """Restore the attributes of an exception that are not among its arguments."""
    attributes = state["attributes"]
    if attributes is not None and type(error).__setstate__ is not BaseException.__setstate__:
        error.__setstate__(attributes)
        attributes = None
    for name, value in {**(attributes or {}), **state["held"]}.items():
        # The `__setattr__` of a frozen dataclass would raise.
        object.__setattr__(error, name, value)


def _is_plain(kind: type) -> bool:
    """Return whether instances of `kind` are pickled by the method of BaseException."""
    own = next(vars(base)["__reduce__"] for base in kind.__mro__ if "__reduce__" in vars(base))
    usual = vars(object)["__reduce_ex__"] is getattr(kind, "__reduce_ex__", None)
    return usual and not hasattr(own, "__code__")


def _compiled(kind: type, name: str) -> Any:
    """Return the first method of that name in the MRO that is not written in Python."""
    for base in kind.__mro__:
        found = vars(base).get(name)
        if name == "__init__" and type(found) is WrapperDescriptorType:
            return found
        if name == "__new__" and found is not None and not isinstance(found, staticmethod):
            return found
    raise AssertionError("every BaseException has both")


def _slots(kind: type) -> Iterator[str]:
    """Yield the names of attributes that are neither in the dict nor in the arguments."""
    for base in kind.__mro__:
        python = bool(base.__flags__ & _MADE_BY_PYTHON)
        for name, member in vars(base).items():
            if type(member) is MemberDescriptorType and (python or name in _NOT_PICKLED):
                yield name
