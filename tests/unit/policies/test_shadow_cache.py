"""A miniature cache of keys measures a policy."""

from __future__ import annotations

from memories import policies
from memories.policies.shadow_cache import ShadowCache


def test_it_hits_what_the_policy_would_have_kept() -> None:
    """Its miss ratio is what `auto` chooses by."""
    cache = ShadowCache(policies.make("lru", 3))
    hits = [cache.access(key, ord(key), 1, stamp) for stamp, key in enumerate("abcadbe")]
    assert [False, False, False, True, False, False, False] == hits  # `d` evicted `b`, not `a`.
    cache.check()


def test_a_value_beyond_the_capacity_never_enters() -> None:
    """It would evict everything else."""
    cache = ShadowCache(policies.make("lru", 3))
    assert not cache.access("large", 1, 4, 0) and not cache.access("large", 1, 4, 1)
    assert 0 == len(cache)


def test_a_smaller_sample_drops_keys_beyond_it_and_a_removed_key_is_forgotten() -> None:
    """A key outside of the sample would be charged and never read again."""
    cache = ShadowCache(policies.make("lru", 10))
    for digest, key in enumerate("abcdef"):
        cache.access(key, digest, 1, digest)
    cache.resize(10, below=3)
    assert 3 == len(cache)
    cache.forget("a", 0)
    assert 2 == len(cache)
    cache.check()
