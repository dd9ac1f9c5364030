"""Exceptions taken apart for pickle: what they hold, and not what their constructor once got.

Not tracebacks, which belong to a running stack. The one idea: an exception is made again by the
constructor of the builtin below it, for that of its own class may ask for other arguments.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MemberDescriptorType, WrapperDescriptorType
from typing import Any

_MADE_BY_PYTHON = 1 << 9  # Of a type's flags: it lies on the heap.
_HELD_BY_ALL = ("__cause__", "__context__", "__suppress_context__", "__notes__")
_UNTOLD = ("name",)  # What some builtins hold and do not give to pickle.


def reduce_exception(error: BaseException) -> Any:
    """Return what pickle needs to make `error` again, its notes, cause and context included."""
    made: Any = error.__reduce_ex__(5)
    if not isinstance(made, tuple) or len(made) > 3:
        return made  # Its class knows better.
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
    """Give an exception what it held besides its arguments."""
    attributes = state["attributes"]
    if attributes is not None and type(error).__setstate__ is not BaseException.__setstate__:
        error.__setstate__(attributes)
        attributes = None
    for name, value in {**(attributes or {}), **state["held"]}.items():
        # Not by its own `__setattr__`: that of a frozen dataclass refuses.
        object.__setattr__(error, name, value)


def _is_plain(kind: type) -> bool:
    """Return whether pickle takes instances of `kind` as it takes all exceptions."""
    own = next(vars(base)["__reduce__"] for base in kind.__mro__ if "__reduce__" in vars(base))
    usual = vars(object)["__reduce_ex__"] is getattr(kind, "__reduce_ex__", None)
    return usual and not hasattr(own, "__code__")


def _compiled(kind: type, name: str) -> Any:
    """Return the first method of that name that is not written in Python."""
    for base in kind.__mro__:
        found = vars(base).get(name)
        if name == "__init__" and type(found) is WrapperDescriptorType:
            return found
        if name == "__new__" and found is not None and not isinstance(found, staticmethod):
            return found
    raise AssertionError("BaseException has both")


def _slots(kind: type) -> Iterator[str]:
    """Yield the names of what instances hold outside of their dict and their arguments."""
    for base in kind.__mro__:
        python = bool(base.__flags__ & _MADE_BY_PYTHON)
        for name, member in vars(base).items():
            if type(member) is MemberDescriptorType and (python or name in _UNTOLD):
                yield name
