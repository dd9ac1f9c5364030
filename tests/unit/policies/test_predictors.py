from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memories.policies.predictors import (
    PatternPredictor,
    Predictor,
    Prefetcher,
    StridePredictor,
    SuccessorPredictor,
)
from memories.policies.predictors.key_numbers import split_key

PREDICTORS = [SuccessorPredictor, StridePredictor, PatternPredictor]


def feed(predictor, keys):
    for now, key in enumerate(keys):
        predictor.observe(key, float(now))
    return [guess.key for guess in predictor.predict(keys[-1])]


def test_a_successor_follows_again():
    """Programs read the same things in the same order, epoch after epoch."""
    assert ["b"] == feed(SuccessorPredictor(), ["a", "b", "c", "a"])


def test_a_successor_that_held_often_survives_one_exception():
    """One interruption must not undo what was confirmed ten times."""
    keys = ["a", "b"] * 5 + ["a", "x", "a"]
    assert ["b"] == feed(SuccessorPredictor(), keys)


def test_a_successor_that_keeps_failing_is_replaced():
    """The order may have changed for good."""
    keys = ["a", "b"] * 5 + ["a", "x"] * 5 + ["a"]
    assert ["x"] == feed(SuccessorPredictor(), keys)


def test_a_stride_goes_on():
    """Frames, shards and blocks are numbered."""
    assert ["frame/16.npy"] == feed(StridePredictor(), [f"frame/{n}.npy" for n in (8, 10, 12, 14)])


def test_a_stride_keeps_the_width_of_its_numbers():
    """`part-0010` is a key, `part-10` is none."""
    assert ["part-0010"] == feed(StridePredictor(), [f"part-{n:04d}" for n in range(5, 10)])


def test_interleaved_runs_are_distinguished():
    """Two readers of one family must not hide each other's order."""
    keys = [f"b/{base + n}" for n in range(5) for base in (1000, 5000)]
    assert ["b/5005"] == feed(StridePredictor(), keys)


def test_a_run_that_expects_a_number_gets_it_from_one_that_is_nearer():
    """Readers that pass each other keep their own steps."""
    up, down = range(0, 72, 9), range(500, 20, -60)
    keys = [f"k/{n}" for pair in zip(up, down, strict=True) for n in pair]
    assert ["k/20"] == feed(StridePredictor(), keys)


def test_two_equal_steps_are_needed():
    """Two keys alone are no stride."""
    assert [] == feed(StridePredictor(), ["k/3", "k/7"])


def test_a_neighbour_is_expected_ahead_of_a_walk():
    """A map is panned in any direction: each number moves on its own."""
    walk = ["tile/12/33", "tile/12/34"]
    assert ["tile/12/35"] == feed(PatternPredictor(), walk)
    assert ["tile/12/32"] == feed(PatternPredictor(), walk[::-1])
    assert ["tile/13/34"] == feed(PatternPredictor(), ["tile/11/34", "tile/12/34"])


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_memory_is_bounded(predictor):
    """A predictor sees every miss for years."""
    option = "remembered_families" if predictor is StridePredictor else "remembered_keys"
    small = predictor(**{option: 10})
    source = random.Random(1)
    for now in range(2000):
        key = f"{source.randrange(10**6)}/{source.randrange(10**6)}"
        small.observe(key, now)
        for guess in small.predict(key):
            small.record_outcome(guess.grounds, came_true=False)
    held = [value for value in vars(small).values() if isinstance(value, dict)]
    assert all(len(value) <= max(10, small.max_grounds) for value in held)


@given(st.text(max_size=40))
def test_any_key_can_be_taken_apart_and_put_together(key):
    """Keys are the users' own; no name may break the prediction."""
    numbers = split_key(key)
    for at in range(len(numbers.digits)):
        assert key == numbers.neighbour(at, 0) or not numbers.digits[at].isascii()
    for predictor in PREDICTORS:
        feed(predictor(), [key, key + "1", key + "2", key + "3"])


def drive(prefetcher, keys, known):
    """Read `keys` from a tier that forgets everything at once but what was fetched ahead."""
    ahead = []
    misses = 0
    for now, key in enumerate(keys):
        if key in ahead:
            ahead.remove(key)
            prefetcher.record_outcome(key, "used")
        else:
            misses += 1
        prefetcher.observe(key, now)
        for guess in prefetcher.propose(
            key, lambda k: 1 if k in known and k not in ahead else None
        ):
            ahead.append(guess.key)
        while len(ahead) > 8:
            prefetcher.record_outcome(ahead.pop(0), "wasted")
        prefetcher.check()
    return misses


def test_a_repeated_order_is_soon_fetched_ahead():
    """The point of it all: the second epoch waits for nothing."""
    source = random.Random(2)
    epoch = [f"sample/{source.randrange(10**9)}" for _ in range(300)]
    prefetcher = Prefetcher(budget_bytes=100)
    misses = drive(prefetcher, epoch * 6, set(epoch))
    assert misses < 300 + 120
    assert prefetcher.counters.accuracy > 0.95


def test_random_reads_are_left_alone():
    """A prefetcher that cannot know must not load the disk with guesses."""
    source = random.Random(3)
    keys = [f"key/{source.randrange(500)}" for _ in range(5000)]
    prefetcher = Prefetcher(budget_bytes=1000)
    drive(prefetcher, keys, set(keys))
    assert prefetcher.counters.issued < 100


def test_it_switches_off_when_it_stops_being_right_and_on_when_it_is_again():
    """The floor is live: phases of a program differ."""
    source = random.Random(4)
    ordered = [f"s/{source.randrange(10**9)}" for _ in range(200)]
    prefetcher = Prefetcher([SuccessorPredictor()], budget_bytes=1000)
    drive(prefetcher, ordered * 5, set(ordered))
    before = prefetcher.counters
    shuffled = [source.choice(ordered) for _ in range(6000)]
    drive(prefetcher, shuffled, set(ordered))
    during = prefetcher.counters
    assert during.issued - before.issued < 600
    misses = drive(prefetcher, ordered * 10, set(ordered))
    assert misses < 1400
    assert prefetcher.counters.used - during.used > 600


class Wild(Predictor):
    """Has new grounds for every guess, so that none is ever disproved, and is always wrong."""

    name = "wild"

    def __init__(self):
        super().__init__()
        self.number = 0

    def observe(self, key, now):
        self.number += 1

    def candidates(self, key):
        return [(f"wrong/{self.number}", self.number)]


def test_a_predictor_below_the_floor_proposes_nothing():
    """A predictor that is wrong again and again is switched off, on any grounds."""
    prefetcher = Prefetcher([Wild()], budget_bytes=10, threshold=0.4, floor=0.6)
    for now in range(500):
        prefetcher.observe(f"k/{now}", now)
        for guess in prefetcher.propose(f"k/{now}", lambda key: 1):
            prefetcher.record_outcome(guess.key, "wasted")
    assert prefetcher.counters.issued < 20
    assert not prefetcher.enabled(0)


def test_the_budget_bounds_what_is_fetched_and_not_yet_read():
    """Guesses must never take the room of what is in use."""
    prefetcher = Prefetcher(budget_bytes=10, threshold=0.0, floor=0.0)
    for now in range(200):
        prefetcher.observe(f"k/{now}", now)
        prefetcher.propose(f"k/{now}", lambda key: 4)
        prefetcher.check()
    assert 2 == prefetcher.counters.issued


def test_what_is_there_already_or_does_not_exist_is_not_proposed():
    """Only the engine knows; it is asked."""
    prefetcher = Prefetcher(budget_bytes=10, threshold=0.0)
    for now in range(20):
        prefetcher.observe(f"k/{now}", now)
        assert [] == prefetcher.propose(f"k/{now}", lambda key: None)


def test_a_late_guess_was_right():
    """Too slow is another fault than wrong, and is counted apart."""
    prefetcher = Prefetcher([StridePredictor()], budget_bytes=10, threshold=0.0)
    for now in range(5):
        prefetcher.observe(f"k/{now}", now)
    (guess,) = prefetcher.propose("k/4", lambda key: 1)
    prefetcher.record_outcome(guess.key, "late")
    assert (1, 0, 1, 0) == prefetcher.counters
    assert 1.0 == prefetcher.counters.accuracy


def test_feedback_about_unknown_keys_is_ignored():
    """An explicit prefetch has the same entries, but was no guess."""
    prefetcher = Prefetcher(budget_bytes=10)
    prefetcher.record_outcome("k", "used")
    prefetcher.record_outcome("k", "wasted")
    assert (0, 0, 0, 0) == prefetcher.counters
