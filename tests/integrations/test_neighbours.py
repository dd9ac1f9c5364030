"""Neighbouring chunks are guessed, and guesses that do not come true end by themselves."""

from __future__ import annotations

import pytest

pytest.importorskip("zarr", minversion="3", reason="zarr 3 is not installed")

from memories.integrations.zarr.neighbours import MOST_UNREAD, Neighbours


def never(key: str) -> bool:
    del key
    return False


def test_a_pan_leads_to_the_next_chunks() -> None:
    """After some reads in a row each read proposes the next, and each first hit the one after."""
    neighbours = Neighbours(1 << 20)
    guessed: list[str] = []
    for number in range(20):
        key = f"cube/c/0/{number}"
        if key in guessed:
            guessed += neighbours.after_hit(key, number, never)
            continue
        guessed += neighbours.after_read(key, 1000, number, never)
        for one in guessed:
            neighbours.fetched(one, found=True)
    assert "cube/c/0/20" in guessed
    assert all(one.startswith("cube/c/0/") for one in guessed)


def test_what_is_kept_or_absent_is_not_proposed() -> None:
    """A request for what is known would be in vain."""
    neighbours = Neighbours(1 << 20)
    for number in range(50):
        assert [] == neighbours.after_read(f"c/{number}", 1000, number, lambda key: True)


def test_reads_that_never_follow_end_the_guesses() -> None:
    """A random reader must not pay for chunks that it does not read."""
    neighbours = Neighbours(1 << 20)
    issued = []
    for number in range(600):
        start = number * 1000
        for key in (f"c/{start}", f"c/{start + 1}"):
            found = neighbours.after_read(key, 1000, number, never)
            for one in found:
                neighbours.fetched(one, found=False)
            issued.append(len(found))
    assert sum(issued[-200:]) <= sum(issued[:200])
    assert sum(issued[-200:]) == 0


def test_unread_chunks_are_bounded() -> None:
    """Chunks that are never read count as wrong guesses, and are forgotten."""
    neighbours = Neighbours(1 << 30)
    for number in range(2000):
        for one in neighbours.after_read(f"c/{number * 7}", 1000, number, never):
            neighbours.fetched(one, found=True)
    assert len(neighbours._unread) <= MOST_UNREAD
