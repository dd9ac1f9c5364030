"""Objects that only serve a function do not make it another function."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from memories.codecs.opaque_types import is_opaque


class OwnLock:
    """A lock of a user, which may return data."""


@pytest.mark.parametrize(
    "value", [threading.Lock(), threading.Event(), logging.getLogger("x"), object()]
)
def test_locks_loggers_and_markers_have_no_content(value: Any) -> None:
    """Two functions that differ only in their lock share their results."""
    assert is_opaque(value)


def test_a_pool_has_no_content() -> None:
    """Where a result is computed does not change it."""
    with ThreadPoolExecutor(1) as pool:
        assert is_opaque(pool)


@pytest.mark.parametrize("value", [1, "text", {}, OwnLock(), OSError()])
def test_everything_else_counts(value: Any) -> None:
    """A wrong result is worse than one that is computed twice."""
    assert not is_opaque(value)
