from __future__ import annotations

import pytest

from memories import policies
from memories.errors import InvalidOptionError
from memories.policies import registry
from memories.policies.lru import LruPolicy


@pytest.fixture
def _restored(monkeypatch):
    monkeypatch.setattr(registry, "_factories", dict(registry._factories))


@pytest.mark.parametrize("name", ["lru", "fifo", "lfu", "sieve", "s3fifo", "gdsf", "mq"])
def test_every_documented_policy_has_its_name(name):
    """The names are settings that users write."""
    policy = policies.make(name, 1000)
    assert (name, 1000) == (policy.name, policy.capacity)


@pytest.mark.parametrize(
    ("wrong", "right"), [("LRU", "lru"), ("s3-fifo", "s3fifo"), ("gdfs", "gdsf")]
)
def test_a_misspelt_name_is_refused_with_the_nearest(wrong, right):
    """A setting that is silently ignored is worse than none."""
    with pytest.raises(InvalidOptionError, match=f"did you mean '{right}'"):
        policies.make(wrong, 1000)


def test_an_unknown_name_lists_what_there_is():
    """Where nothing is near, the list is the help."""
    with pytest.raises(InvalidOptionError, match=r"known are .*lru"):
        policies.make("zzzzzzzz", 1000)


def test_an_unknown_option_is_refused():
    """Options are settings too."""
    with pytest.raises(InvalidOptionError, match="'lru' does not take"):
        policies.make("lru", 1000, costs=3)


@pytest.mark.usefixtures("_restored")
def test_users_register_their_own():
    """Ours are not special."""

    class Mine(LruPolicy):
        name = "mine"

    policies.register_policy("mine", Mine)
    assert isinstance(policies.make("mine", 10), Mine)
    with pytest.raises(InvalidOptionError, match="exists already"):
        policies.register_policy("mine", LruPolicy)
    policies.register_policy("mine", LruPolicy, replace=True)
    assert type(policies.make("mine", 10)) is LruPolicy


@pytest.mark.parametrize("name", ["My Policy", "", "Upper", "a-b"])
def test_a_name_is_a_plain_word(name):
    """It is written in settings and on command lines."""
    with pytest.raises(InvalidOptionError, match="cannot name a policy"):
        policies.register_policy(name, LruPolicy)
