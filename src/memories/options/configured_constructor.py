"""A decorator for constructors: options that a call leaves out come from the configuration.

The defaults remain in the signature of the constructor; they apply where no source sets an option.
An argument that was given is never replaced, whatever its value.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, NamedTuple, ParamSpec

from memories.errors import InvalidOptionError
from memories.foundation.wrong_calls import nearest, wrong_call
from memories.options.config_sources import ARGUMENT_ONLY, FoundOption, read_config
from memories.options.migration import MigrationSettings

Arguments = ParamSpec("Arguments")

# Options of the distributed manager: a project may set them although it also has plain managers.
DISTRIBUTED = frozenset(
    {
        "nodes",
        "replication_factor",
        "namespace",
        "allow_eviction",
        "strict_replication",
        "near_cache",
    }
)

_known = set(DISTRIBUTED)  # Grows with every constructor that is decorated.


class EffectiveOption(NamedTuple):
    """An option of a manager, its value if no argument is given, and the origin of this value."""

    name: str
    value: Any
    origin: str


def configured(make: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Decorate an `__init__` so that options that a call leaves out come from the configuration.

    Raises:
        InvalidOptionError: a configured name or table is invalid.
    """
    signature = inspect.signature(make)
    _known.update(_names(signature))

    @wraps(make)
    def initialise(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        given = _check_call(signature, signature.bind_partial, args, kwargs)
        for name, found in configured_options(signature).items():
            if name in signature.parameters and name not in given:
                kwargs[name] = found.value
        # What is missing now is in no file either.
        _check_call(signature, signature.bind, args, kwargs)
        make(*args, **kwargs)

    return initialise


def configured_options(signature: inspect.Signature) -> dict[str, FoundOption]:
    """Return the configured values of the parameters of `signature`, by name."""
    found = read_config(_known.union(_names(signature)))
    migration = found.get("migration")
    if migration is not None and isinstance(migration.value, Mapping):
        settings = _migration(migration.value, migration.origin)
        found["migration"] = FoundOption(settings, migration.origin)
    return found


def effective_options(make: Callable[..., Any]) -> list[EffectiveOption]:
    """Return every option of a manager made without arguments, with its origin."""
    signature = inspect.signature(make)
    found = configured_options(signature)
    return [
        EffectiveOption(
            name, *found.get(name, FoundOption(signature.parameters[name].default, "default"))
        )
        for name in _names(signature)
    ]


def _check_call(
    signature: inspect.Signature, bind: Callable[..., inspect.BoundArguments],
    args: tuple[Any, ...], kwargs: Mapping[str, Any],
) -> Mapping[str, Any]:  # fmt: skip
    """Return what a constructor was given, by name; `bind` is a method of its signature.

    Raises:
        InvalidOptionTypeError: the arguments do not fit.
    """
    try:
        return bind(*args, **kwargs).arguments
    except TypeError as error:
        made = type(args[0])
        known = {*_named(signature), *_named(inspect.signature(made))}
        raise wrong_call(made.__name__, error, known, kwargs) from None


def _names(signature: inspect.Signature) -> list[str]:
    """Return the parameters that configuration may set."""
    return [name for name in _named(signature) if name not in ARGUMENT_ONLY]


def _named(signature: inspect.Signature) -> list[str]:
    """Return the parameters that a call may name."""
    parameters = signature.parameters.values()
    named = (
        one.name for one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    )
    return [name for name in named if name != "self"]


def _migration(table: Mapping[str, Any], origin: str) -> MigrationSettings:
    known = inspect.signature(MigrationSettings).parameters
    for name in table:
        if name not in known:
            raise InvalidOptionError(
                f"{origin} sets migration.{name}, which is not a setting{nearest(name, known)}"
            )
    return MigrationSettings(**table)
