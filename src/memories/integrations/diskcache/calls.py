"""Names calls of functions: what `memoize` of diskcache makes of the arguments."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from memories.codecs.content_hash import content_hash


def name_of_function(function: Callable[..., Any]) -> str:
    """Return the module and the qualified name."""
    return f"{function.__module__}.{getattr(function, '__qualname__', repr(function))}"


def arguments_key(
    base: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    typed: bool,
    ignore: Collection[int | str],
) -> str:
    """Return the key of a call: equal for equal arguments of the same types.

    Arrays, frames and containers of them are compared by their content.

    Raises:
        UnsupportedTypeError: the content of an argument cannot be compared.
    """
    places = tuple(arg for place, arg in enumerate(args) if place not in ignore)
    named = sorted((name, value) for name, value in kwargs.items() if name not in ignore)
    parts: list[Any] = [places, tuple(named)]
    if typed:
        values = [*places, *(value for _, value in named)]
        parts.append(
            tuple(f"{type(value).__module__}.{type(value).__qualname__}" for value in values)
        )
    return f"{base}({content_hash(tuple(parts))})"
