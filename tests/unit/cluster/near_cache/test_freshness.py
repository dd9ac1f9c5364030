"""Freshness of local copies: which reported write or gap makes a copy stale."""

from __future__ import annotations

from memories.cluster.near_cache.freshness import PREFIX, Freshness
from memories.cluster.versions import RegisterVersion
from memories.model.events import Removed
from memories.model.tiers import Cause, TierName

OLD, NEW = RegisterVersion(1, 1), RegisterVersion(2, 1)


class Copies:
    """The names of the copies that are stored."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.freshness = Freshness(self.names.discard)

    def put(self, name: str) -> bool:
        self.names.add(name)
        return True

    def insert(self, key: str, version: RegisterVersion = OLD) -> bool:
        return self.freshness.insert(key, version, self.freshness.token(key), self.put)


def test_a_copy_is_fresh_until_a_write_is_reported() -> None:
    """The write removes the copy."""
    copies = Copies()
    assert copies.insert("key") and copies.insert("other")
    assert {"key": PREFIX + "key", "other": PREFIX + "other"} == copies.freshness.fresh
    copies.freshness.invalidate("key")
    assert ({"other": PREFIX + "other"}, {PREFIX + "other"}) == (
        copies.freshness.fresh,
        copies.names,
    )
    assert (None, OLD) == (copies.freshness.version("key"), copies.freshness.version("other"))
    assert "other" == copies.freshness.oldest() and 1 == len(copies.freshness)


def test_a_value_that_was_read_before_a_reported_write_is_not_cached() -> None:
    """The read may have returned the value before that write."""
    copies = Copies()
    token = copies.freshness.token("key")
    copies.freshness.invalidate("key")
    assert not copies.freshness.insert("key", OLD, token, copies.put)
    assert set() == copies.names


def test_a_write_that_is_reported_during_an_insert_removes_the_copy() -> None:
    """Thread 1 stores the copy; thread 2 reports the write before thread 1 declares it fresh."""
    copies = Copies()

    def put(name: str) -> bool:
        copies.freshness.invalidate("key")
        return copies.put(name)

    assert not copies.freshness.insert("key", OLD, copies.freshness.token("key"), put)
    assert set() == copies.names and {} == copies.freshness.fresh


def test_after_a_gap_a_copy_is_fresh_only_if_its_version_is_current() -> None:
    """Writes may have been missed during the gap."""
    copies = Copies()
    assert copies.insert("key")
    before = copies.freshness.token("key")
    copies.freshness.require_revalidation()
    assert {} == copies.freshness.fresh and OLD == copies.freshness.version("key")
    assert not copies.freshness.revalidate("key", OLD, before)
    token = copies.freshness.token("key")
    assert not copies.freshness.revalidate("key", NEW, token)
    assert copies.freshness.revalidate("key", OLD, token)
    assert ["key"] == list(copies.freshness.fresh)


def test_an_evicted_copy_is_forgotten() -> None:
    """A value of another key that is removed has no effect."""
    copies = Copies()
    assert copies.insert("key")
    for name in ("key", PREFIX + "key"):
        assert 1 == len(copies.freshness)
        copies.freshness.observe(
            Removed(key=name, at=0.0, tier=TierName.WARM, size=1, cause=Cause.CAPACITY)
        )
    assert 0 == len(copies.freshness) and {} == copies.freshness.fresh


def test_no_copy_is_fresh_after_the_end() -> None:
    """The connections that report writes are closed."""
    copies = Copies()
    assert copies.insert("key")
    copies.freshness.close()
    assert {} == copies.freshness.fresh and float("-inf") == copies.freshness.fresh_until
