"""How error messages list what went wrong with several nodes."""

from __future__ import annotations

from collections.abc import Mapping


def join_reasons(reasons: Mapping[str, str], *, otherwise: str = "") -> str:
    """Return `node: reason` for every node, ordered by name; `otherwise` if there are none."""
    return "; ".join(f"{node}: {reason}" for node, reason in sorted(reasons.items())) or otherwise
