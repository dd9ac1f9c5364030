from __future__ import annotations

import pytest

from memories.policies.promotion_gate import PromotionGate


def test_free_room_promotes_at_the_first_touch():
    """Nothing has to leave, so there is nothing to be careful about."""
    assert PromotionGate().touch("k", 100, room=100)


def test_without_room_a_key_needs_a_second_touch():
    """A one-hit wonder must not push out something that is in use."""
    gate = PromotionGate()
    assert not gate.touch("k", 100, room=99)
    assert gate.touch("k", 100, room=99)


@pytest.mark.parametrize("room", [0, 10**9])
def test_nothing_is_promoted_under_pressure(room):
    """The tier above is making room already: a promotion would only make it throw more out."""
    gate = PromotionGate()
    assert [False] * 5 == [gate.touch("k", 1, room=room, pressure=True) for _ in range(5)]


def test_touches_under_pressure_count_afterwards():
    """The evidence was real, only the moment was wrong."""
    gate = PromotionGate()
    gate.touch("k", 1, room=0, pressure=True)
    assert gate.touch("k", 1, room=0)


def test_touches_far_apart_are_forgotten():
    """Memory is bounded, and a scan over many keys leaves no false heat behind."""
    gate = PromotionGate(remembered_keys=10)
    gate.touch("k", 1, room=0)
    for number in range(10):
        gate.touch(str(number), 1, room=0)
    assert len(gate) == 10
    assert not gate.touch("k", 1, room=0)


def test_a_forgotten_key_starts_anew():
    """After a promotion the next touches are those of another stay."""
    gate = PromotionGate()
    gate.touch("k", 1, room=0)
    gate.forget("k")
    assert 0 == gate.touches("k")
    assert not gate.touch("k", 1, room=0)


def test_reads_of_long_ago_keep_a_key_no_longer():
    """A working set that has moved leaves before the present one, of which less is read."""
    gate = PromotionGate()
    gate.record("former", 3)
    gate.record("present", 1)
    for number in range(300):
        gate.record(f"other {number}", 0)
    assert gate.coldness("former", span=1000) < gate.coldness("present", span=1000)
    gate.record("present", 1)
    for number in range(200):
        gate.record(f"further {number}", 0)
    assert gate.coldness("former", span=100) > 2 * gate.coldness("present", span=100)


@pytest.mark.parametrize("room", [0, 50, 10**9])
def test_many_reads_together_are_those_one_by_one(room):
    """A key that is read twice in a batch has had its second touch there."""
    together, singly = PromotionGate(remembered_keys=10), PromotionGate(remembered_keys=10)
    read = [(f"k{number * number % 13}", 10 * (number % 7)) for number in range(50)]
    found = together.touch_all(read, room=room)
    assert found == [singly.touch(key, size, room=room) for key, size in read]
    assert [together.coldness(key) for key, _ in read] == [singly.coldness(key) for key, _ in read]
