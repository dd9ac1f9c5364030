"""Eviction policies and the other rules of placement: plain data structures without I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memories.policies.base import Policy, PolicyNode

if TYPE_CHECKING:
    from memories.policies.registry import (
        PolicyChoice,
        accepts_option,
        make,
        names,
        register_policy,
        require_known,
    )

__all__ = [
    "Policy",
    "PolicyChoice",
    "PolicyNode",
    "accepts_option",
    "make",
    "names",
    "register_policy",
    "require_known",
]


def __getattr__(name: str) -> Any:
    """Import the table of policies, and with it all of them, at its first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from memories.policies import registry

    return getattr(registry, name)
