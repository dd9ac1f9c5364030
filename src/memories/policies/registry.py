"""The table of policies by name: those of this package, and those that users register."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, NewType

from memories.errors import InvalidOptionError
from memories.policies.auto import AutoPolicy
from memories.policies.base import Policy
from memories.policies.fifo import FifoPolicy
from memories.policies.gdsf import GdsfPolicy
from memories.policies.lfu import LfuPolicy
from memories.policies.lru import LruPolicy
from memories.policies.mq import MqPolicy
from memories.policies.s3fifo import S3FifoPolicy
from memories.policies.sieve import SievePolicy

PolicyFactory = Callable[..., Policy]
OwnPolicy = Literal["auto", "lru", "fifo", "lfu", "sieve", "s3fifo", "gdsf", "mq"]
RegisteredPolicy = NewType("RegisteredPolicy", str)  # The name of a policy of the user.
PolicyChoice = OwnPolicy | RegisteredPolicy

_OWN: tuple[type[Policy], ...] = (
    AutoPolicy,
    LruPolicy,
    FifoPolicy,
    LfuPolicy,
    SievePolicy,
    S3FifoPolicy,
    GdsfPolicy,
    MqPolicy,
)
_factories: dict[str, PolicyFactory] = {policy.name: policy for policy in _OWN}


def register_policy(
    name: str, factory: PolicyFactory, *, replace: bool = False
) -> RegisteredPolicy:
    """Make `factory(capacity, **options)` known as the policy `name`, and return the name.

    Type checkers accept the returned name as `eviction_policy` of a manager.

    Raises:
        InvalidOptionError: the name is not an identifier in lower case, or it exists already and
            `replace` is False.
    """
    if not name.isidentifier() or name != name.lower():
        raise InvalidOptionError(
            f"{name!r} cannot name a policy: use lower-case letters, digits and underscores"
        )
    if name in _factories and not replace:
        raise InvalidOptionError(
            f"a policy named {name!r} exists already: choose another name, or say replace=True"
        )
    _factories[name] = factory
    return RegisteredPolicy(name)


def names() -> tuple[str, ...]:
    """Return the names of all policies, in alphabetical order."""
    return tuple(sorted(_factories))


def require_known(name: str) -> None:
    """Raise InvalidOptionError, suggesting the nearest name, unless `name` is a policy."""
    if name in _factories:
        return
    from difflib import get_close_matches  # Imported at use: few names are wrong.

    near = get_close_matches(str(name).lower(), _factories, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InvalidOptionError(
        f"there is no eviction policy named {name!r}: {hint}known are {', '.join(names())}"
    )


def accepts_option(name: str, option: str) -> bool:
    """Return whether the policy `name` has a parameter `option`.

    Raises:
        InvalidOptionError: the name is unknown.
    """
    require_known(name)
    return option in inspect.signature(_factories[name]).parameters


def make(name: str, capacity: int, **options: Any) -> Policy:
    """Return a new policy `name` for a tier of `capacity` bytes.

    Raises:
        InvalidOptionError: the name is unknown, or the policy does not accept these options.
    """
    require_known(name)
    try:
        return _factories[name](capacity, **options)
    except TypeError as error:
        if not options:
            raise
        raise InvalidOptionError(
            f"the policy {name!r} does not take the options {sorted(options)}: {error}"
        ) from error
