"""Types of parameters that a compiled function does not check by itself.

A compiled function raises a TypeError of its own for an argument of another type than the one that
is written. The public methods raise errors of this package instead, so the compiler reads `Any`.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

T = TypeVar("T")
Unchecked = Annotated[T, "checked where it is used"]
