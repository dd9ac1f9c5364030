"""How error messages list what went wrong with several nodes."""

from __future__ import annotations

from collections.abc import Mapping


def join_reasons(reasons: Mapping[str, str], *, otherwise: str = "") -> str:
    """Return `node: reason` for every node, ordered by name; `otherwise` if there are none."""
    return "; ".join(_about(*one) for one in sorted(reasons.items())) or otherwise


def _about(node: str, reason: str) -> str:
    own = f"the node {node} "
    return f"{node} {reason.removeprefix(own)}" if reason.startswith(own) else f"{node}: {reason}"
