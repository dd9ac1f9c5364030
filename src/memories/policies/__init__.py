"""Eviction policies and the other rules of placement: plain data structures without I/O."""

from __future__ import annotations

from memories.policies.base import Policy, PolicyNode
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
