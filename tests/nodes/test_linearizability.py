"""The linearizability checker itself: it must accept valid histories and refuse all others.

A checker that accepts everything would make every test that uses it pass.
"""

from __future__ import annotations

import itertools
import math
import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.nodes.linearizability import (
    ABSENT,
    NotLinearizableError,
    Operation,
    Recorder,
    TooHardError,
    check,
)

FOR_EVER = math.inf


def w(value: object, began: float, ended: float) -> Operation:
    """Return a write."""
    return Operation("write", value, began, ended)


def r(value: object, began: float, ended: float) -> Operation:
    """Return a read."""
    return Operation("read", value, began, ended)


RIGHT = {
    "nothing happened": [],
    "absent before the first write": [r(ABSENT, 0, 1), w("a", 2, 3), r("a", 4, 5)],
    "a read beside a write sees either": [w("a", 0, 1), w("b", 2, 5), r("a", 3, 4), r("b", 6, 7)],
    "two writes at once, in the order that reads show": [
        w("a", 0, 5), w("b", 0, 5), r("b", 6, 7), r("b", 8, 9),
    ],
    "a write in doubt that happened": [w("a", 0, FOR_EVER), r("a", 5, 6)],
    "a write in doubt that never happened": [w("a", 0, FOR_EVER), r(ABSENT, 5, 6)],
    "a write in doubt that happens late": [
        w("a", 0, 1), w("b", 2, FOR_EVER), r("a", 3, 4), r("b", 5, 6), r("b", 7, 8),
    ],
    "a deletion": [w("a", 0, 1), w(ABSENT, 2, 3), r(ABSENT, 4, 5)],
    "the same value twice": [w("a", 0, 1), w("b", 2, 3), w("a", 4, 5), r("a", 6, 7)],
}  # fmt: skip

WRONG = {
    "a stale read": [w("a", 0, 1), w("b", 2, 3), r("a", 4, 5)],
    "a lost write": [w("a", 0, 1), r(ABSENT, 2, 3)],
    "a value from nowhere": [r("a", 0, 1)],
    "a value from the future": [r("a", 0, 1), w("a", 2, 3)],
    "new, then old": [w("a", 0, 1), w("b", 2, 9), r("b", 3, 4), r("a", 5, 6)],
    "new, then old, of a write in doubt": [
        w("a", 0, 1), w("b", 2, FOR_EVER), r("b", 3, 4), r("a", 5, 6),
    ],
    "two readers see two writes in two orders": [
        w("a", 0, 3), w("b", 0, 3), r("a", 4, 5), r("b", 6, 7), r("a", 8, 9),
    ],
    "a deleted value comes back": [w("a", 0, 1), w(ABSENT, 2, 3), r("a", 4, 5)],
    "absent between two presences without a deletion": [
        w("a", 0, 1), r("a", 2, 3), r(ABSENT, 4, 5), r("a", 6, 7),
    ],
    "a write in doubt happens twice": [
        w("a", 0, FOR_EVER), r("a", 1, 2), w("b", 3, 4), r("b", 5, 6), r("a", 7, 8),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_history_passes(name: str) -> None:
    """A checker that refuses valid histories would soon be ignored."""
    check(RIGHT[name])


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_history_is_rejected(name: str) -> None:
    """Each of these is a promise broken."""
    with pytest.raises(NotLinearizableError):
        check(WRONG[name])


def test_the_register_may_begin_with_a_value() -> None:
    """A history may be recorded from the middle of a life."""
    check([r("a", 0, 1)], initial="a")


def by_force(history: list[Operation]) -> bool:
    """Return whether any order of any subset that has all certain operations explains the reads."""
    certain = [one for one in history if not one.in_doubt]
    doubtful = [one for one in history if one.in_doubt]
    for count in range(len(doubtful) + 1):
        for happened in itertools.combinations(doubtful, count):
            if any(map(_explains, itertools.permutations([*certain, *happened]))):
                return True
    return False


def _explains(order: tuple[Operation, ...]) -> bool:
    value: object = ABSENT
    for at, one in enumerate(order):
        if any(later.ended < one.began for later in order[at + 1 :]):
            return False
        if one.kind == "read" and one.value != value:
            return False
        value = one.value
    return True


def operation() -> st.SearchStrategy[Operation]:
    """Return a strategy of operations on few values, which overlap often."""
    return st.builds(
        lambda kind, value, began, length, doubt: Operation(
            kind, value, began, FOR_EVER if doubt and kind == "write" else began + length
        ),
        st.sampled_from(["read", "write"]),
        st.sampled_from(["a", "b", ABSENT]),
        st.integers(0, 8),
        st.integers(1, 5),
        st.booleans(),
    )


@given(st.lists(operation(), max_size=6))
def test_the_checker_agrees_with_trying_every_order(history: list[Operation]) -> None:
    """The clever search is right exactly where the stupid one is."""
    try:
        check(history)
        passed = True
    except NotLinearizableError:
        passed = False
    assert by_force(history) == passed


class Register:
    """A register that is right, until `stale_share` of its reads are answered from the past."""

    def __init__(self, stale_share: float = 0.0) -> None:
        self._values: list[object] = [ABSENT]
        self._lock = threading.Lock()
        self._stale_share = stale_share

    def store(self, value: object) -> None:
        """Write."""
        with self._lock:
            self._values.append(value)

    def load(self) -> object:
        """Read."""
        with self._lock:
            stale = random.random() < self._stale_share and len(self._values) > 3
            return self._values[-3 if stale else -1]


def recorded(register: Register, threads: int = 4, turns: int = 300) -> Recorder:
    """Return the operations of several threads on the register."""
    recorder = Recorder((ConnectionError,))

    def work(name: int) -> None:
        for turn in range(turns):
            value = (name, turn)
            if turn % 3:
                recorder.read(register.load, str(name))
            else:
                recorder.write(value, lambda: register.store(value), str(name))  # noqa: B023

    workers = [threading.Thread(target=work, args=(name,)) for name in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return recorder


def test_a_long_history_of_threads_is_checked() -> None:
    """The real ones have thousands of operations."""
    recorder = recorded(Register())
    assert 1200 == len(recorder.history)
    recorder.check()


def test_a_register_with_occasional_stale_reads_is_detected() -> None:
    """One stale read among hundreds is enough."""
    with pytest.raises(NotLinearizableError):
        recorded(Register(stale_share=0.02)).check()


def test_the_recorder_keeps_what_is_in_doubt() -> None:
    """A failed write may have happened, and a KeyError means that the key is absent."""
    recorder = Recorder((ConnectionError,))

    def fail() -> None:
        raise ConnectionError

    assert not recorder.write("a", fail)
    assert not recorder.read(fail)
    assert recorder.read(lambda: {}["k"])
    assert [("write", True), ("read", False)] == [
        (one.kind, one.in_doubt) for one in recorder.history
    ]
    assert ABSENT == recorder.history[1].value
    with pytest.raises(ValueError, match="other"):
        recorder.write("b", lambda: int("other"))


def test_a_history_that_is_too_hard_is_not_accepted() -> None:
    """No verdict is not an acquittal."""
    crowd = [w(number, 0, 10) for number in range(25)]
    with pytest.raises(TooHardError):
        check([*crowd, r("a value without a write", 11, 12)], steps=10_000)
