"""Keys that were in a sample once, and are no more, cost no more than the others."""

from __future__ import annotations

from memories.engine.access_sampler import SAMPLED_KEYS, AccessSampler
from memories.engine.hit_clock import SampledTick, unwrap_unwanted
from memories.engine.hit_counter import HitCounter
from memories.engine.victims import PolicyVictims
from memories.model.entry import SharedEntry, common_of
from memories.model.events import Stored
from memories.model.tiers import TierName
from memories.policies.auto import AutoPolicy


def test_a_key_that_left_the_policys_sample_is_only_counted() -> None:
    """In a tier that fills up every key is sampled at first, and a note takes 50 bytes."""
    victims = PolicyVictims(lambda: AutoPolicy(10**6, sample=8), lambda entry: True, list, {}.get)
    counter = HitCounter()
    entries = [
        SharedEntry(
            key=str(index), version=index, payload=b"", size=100, stored_at=0.0,
            stamp=counter.stamp(),
            common=common_of(TierName.WARM, victims.tick(str(index), 100, counter.tick)),
        )
        for index in range(200)
    ]  # fmt: skip
    for entry in entries:
        victims.add(entry)
    ticks = [unwrap_unwanted(entry.tick) for entry in entries]
    noting = [tick for tick in ticks if isinstance(tick, SampledTick)]
    assert 0 < len(noting) < 50
    assert len(entries) - len(noting) == ticks.count(counter.tick)
    before = counter.hits
    for tick in ticks:
        tick()
    assert before + len(entries) == counter.hits


def test_one_sample_may_let_go_of_a_key_and_the_other_not() -> None:
    """The two lie one within the other, and either may shrink first."""
    watch, counter = AccessSampler(), HitCounter()
    victims = PolicyVictims(lambda: AutoPolicy(10**6), lambda entry: True, list, {}.get)
    keys = [str(index) for index in range(4 * SAMPLED_KEYS)]
    ticks = [watch.tick(key, 1, victims.tick(key, 1, counter.tick)) for key in keys]
    for key in keys:
        watch.observe(Stored(key, 0.0, TierName.WARM, 1, 0.0))
        watch.process_notes()
    inner = {victims.tick(key, 1, counter.tick).__class__ for key in keys}
    after = [unwrap_unwanted(tick) for tick in ticks]
    assert len({type(tick) for tick in after}) == 2
    assert inner < {type(tick) for tick in after}
