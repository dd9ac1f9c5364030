"""Who stays: eviction policies and the other opinions on placement, all of them pure."""

from __future__ import annotations

from memories.policies.base import Node, Policy
from memories.policies.registry import make, names, register_policy, require_known, takes

__all__ = ["Node", "Policy", "make", "names", "register_policy", "require_known", "takes"]
