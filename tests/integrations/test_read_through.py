"""What a manager keeps of a source: fresh, stale or unknown, and never what was overwritten."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from memories import InvalidOptionError, MemoryManager
from memories.integrations.read_through import (
    AbandonedError,
    KeepTerms,
    KeptState,
    ReadThrough,
)

FOR_EVER = KeepTerms(None, 10.0, None)
AT_ONCE = KeepTerms(0.0, 0.0, None)
NAME = ReadThrough.name_of("a")


@pytest.fixture
def manager() -> Iterator[MemoryManager]:
    with MemoryManager("1 MB", "1 MB", "10 MB") as one:
        yield one


@pytest.fixture
def kept(manager: MemoryManager) -> ReadThrough:
    return ReadThrough(manager, "kept", identity="a test")


def fetch(kept: ReadThrough, key: str, content: bytes | None, tag: str | None = None) -> None:
    """Do what a host does that fetches an object."""
    request, mine = kept.begin_fetch(key, ReadThrough.name_of(key))
    assert mine
    kept.keep(request, content, tag, kept.now(), FOR_EVER)
    kept.end_fetch(request, content)


def test_a_value_is_fresh_until_its_age_is_over(kept: ReadThrough) -> None:
    """A stale value is given with its tag, so that the source can confirm it."""
    assert KeptState.UNKNOWN is kept.look_up(NAME, FOR_EVER).state
    fetch(kept, "a", b"1", "tag")
    assert (KeptState.FRESH, b"1") == kept.look_up(NAME, FOR_EVER)
    assert (KeptState.STALE, b"1") == kept.look_up(NAME, AT_ONCE)
    assert "tag" == kept.tag_of(NAME)


def test_absent_is_remembered_and_replaces_what_was_kept(kept: ReadThrough) -> None:
    """An object that was deleted at the source must not stay readable."""
    fetch(kept, "a", b"1")
    fetch(kept, "a", None)
    assert (KeptState.FRESH, None) == kept.look_up(NAME, FOR_EVER)
    assert KeptState.UNKNOWN is kept.look_up(NAME, AT_ONCE).state
    fetch(kept, "a", b"2")
    assert (KeptState.FRESH, b"2") == kept.look_up(NAME, FOR_EVER)


@pytest.mark.parametrize("begins", ["before", "during"])
def test_a_fetch_beside_a_write_is_not_kept(kept: ReadThrough, begins: str) -> None:
    """Its result may be what was there before the write."""
    request = kept.begin_fetch("a", NAME)[0] if begins == "before" else None
    with kept.writing("a") as writing:
        request = request or kept.begin_fetch("a", NAME)[0]
        kept.replace(writing, b"new", FOR_EVER)
    kept.keep(request, b"old", None, kept.now(), FOR_EVER)
    kept.end_fetch(request, b"old")
    assert b"new" == kept.look_up(NAME, FOR_EVER).content


def test_after_two_writes_at_once_nothing_is_kept(kept: ReadThrough) -> None:
    """Which of the two the source has is not known here."""
    with kept.writing("a") as one, kept.writing("a") as two:
        kept.replace(two, b"2", FOR_EVER)
        kept.replace(one, b"1", FOR_EVER)
    assert KeptState.UNKNOWN is kept.look_up(NAME, FOR_EVER).state


def test_a_write_that_fails_leaves_nothing_old(kept: ReadThrough) -> None:
    """The source may have done it, or not."""
    fetch(kept, "a", b"1")
    with pytest.raises(ConnectionError), kept.writing("a"):
        raise ConnectionError
    assert KeptState.UNKNOWN is kept.look_up(NAME, FOR_EVER).state


def test_a_folder_is_dropped_with_its_parts(kept: ReadThrough) -> None:
    """`cube` is not `cube-2`."""
    for key in ("cube/a", "cube/b", "cube-2/a"):
        fetch(kept, key, b"1")
    part = ReadThrough.name_of("cube/a", "0-1")
    request, _ = kept.begin_fetch("cube/a", part)
    kept.keep(request, b"1", None, kept.now(), FOR_EVER)
    kept.end_fetch(request, b"1")
    with kept.writing("cube/", is_folder=True):
        pass
    for name in ("whole/cube/a", "whole/cube/b", part):
        assert KeptState.UNKNOWN is kept.look_up(name, FOR_EVER).state
    assert KeptState.FRESH is kept.look_up("whole/cube-2/a", FOR_EVER).state


def test_callers_that_wait_get_the_result_the_failure_or_the_work(kept: ReadThrough) -> None:
    """A failure is for all of them; after a cancellation one of them fetches."""
    for error, expected in ((ValueError(), ValueError), (KeyboardInterrupt(), AbandonedError)):
        request, _ = kept.begin_fetch("a", NAME)
        same, mine = kept.begin_fetch("a", NAME)
        assert same is request and not mine
        kept.fail_fetch(request, error)
        with pytest.raises(expected):
            same.future.result(0)
    request, mine = kept.begin_fetch("a", NAME)
    assert mine


def test_a_prefix_has_one_source(manager: MemoryManager, kept: ReadThrough) -> None:
    """Values of another source would be served for those of this one."""
    with pytest.raises(InvalidOptionError, match="'kept/' holds what was read from 'a test'"):
        ReadThrough(manager, "/kept/", identity="another")


@pytest.mark.parametrize("max_age", [-1, True, "1 s"])
def test_ages_are_checked(max_age: float) -> None:
    """A wrong age would keep values for ever, or never."""
    with pytest.raises(InvalidOptionError, match="max_age="):
        KeepTerms.checked(max_age, 1.0, "auto")
