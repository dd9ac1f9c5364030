"""Explains calls whose arguments do not fit: the class, the method, and the most similar name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import wraps
from types import FunctionType
from typing import Any, TypeVar

from memories.errors import InvalidOptionTypeError

Class = TypeVar("Class", bound=type)


def explain_calls(
    *, but: Collection[str] = (), hide_base: bool = False
) -> Callable[[Class], Class]:
    """Return a decorator of classes whose public methods explain a wrong call.

    Args:
        but: Methods that stay as they are, because each further call would make them slower.
        hide_base: The base classes of this package are not public. The methods of the first one
            stay as they are, for the same reason; where they are not compiled, Python's own error
            names the decorated class. Those of the others explain wrong calls, too.
    """

    def decorate(made: Class) -> Class:
        for name, method in vars(made.__bases__[0]).items() if hide_base else ():
            if isinstance(method, FunctionType) and not name.startswith("_"):
                method.__qualname__ = f"{made.__name__}.{name}"
        others = made.__bases__[1:] if hide_base else ()
        ours = [base for base in others if base.__module__.startswith("memories.")]
        named = {name: one for base in (*ours, made) for name, one in vars(base).items()}
        for name, method in named.items():
            if not isinstance(method, FunctionType) or name.startswith("_") or name in but:
                continue
            if getattr(made, name) is method:  # Another base may come first.
                setattr(made, name, _explaining(method, f"{made.__name__}.{name}"))
        return made

    return decorate


def explain_construction(made: Class) -> Class:
    """Decorate a class so that a wrong call of its constructor is explained."""
    construct = vars(made)["__init__"]
    setattr(made, "__init__", _explaining(construct, made.__name__))  # noqa: B010
    return made


def wrong_call(
    name: str, error: TypeError, known: Collection[str], options: Mapping[str, object]
) -> InvalidOptionTypeError:
    """Return the error of a call of `name` whose arguments did not fit its parameters.

    Args:
        name: The class, or the class and the method.
        error: Python's own error.
        known: The parameters.
        options: The arguments that were given by name.
    """
    for option in options:
        if option not in known:
            hint = nearest(option, known) or f"; its options are {', '.join(sorted(known))}"
            return InvalidOptionTypeError(f"{name}() got an unexpected option {option!r}{hint}")
    return InvalidOptionTypeError(f"{name}(): {str(error).rpartition('() ')[2]}")


def nearest(name: str, known: Collection[str]) -> str:
    """Return a suggestion of the known name that is most similar to `name`, or an empty text."""
    from difflib import get_close_matches  # Imported at use: few calls are wrong.

    longer = [one for one in sorted(known) if name and one.startswith(name)]
    near = longer or get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _explaining(method: Callable[..., Any], title: str) -> Callable[..., Any]:
    signature = inspect.signature(method)

    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except TypeError as error:
            # An error from within the method has a frame of the method.
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                raise
            known = [name for name in signature.parameters if name != "self"]
            raise wrong_call(title, error, known, kwargs) from None

    return call
