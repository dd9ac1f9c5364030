"""Warns at the line of the user's program that called this package, however deep the call is."""

from __future__ import annotations

import os
import sys
import warnings

_PACKAGE = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120 - compared with file names.


def warn_caller(message: str) -> None:
    """Warn with a UserWarning."""
    warnings.warn(message, stacklevel=_frames_within())


def warn_deprecated(what: str, *, instead: str, gone_in: str) -> None:
    """Warn with a DeprecationWarning that `what` is missing from the version `gone_in` on.

    That is at least two minor versions after the one that first warns: docs/compatibility.md.
    """
    message = f"{what} is deprecated and will be gone in version {gone_in}: use {instead}"
    warnings.warn(message, DeprecationWarning, stacklevel=_frames_within())


def _frames_within() -> int:
    """Return how many frames of this package stand above the caller's own."""
    depth, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        depth, frame = depth + 1, frame.f_back
    return depth
